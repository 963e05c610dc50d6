-- Makes a staged copy the thread: one rename each, so it is all there or not at all. Or puts it in place of the thread, as
-- `rekey` does: then index, TTL, settings, and what the bucket says of the thread stay as they are.
-- KEYS[8] staged hash, KEYS[9] staged index.
-- ARGV: 1 thread, 2 TTL as in apply_ttl(), 3 operation id, 4 what the counts field S of the thread shall say, without prefix,
--       token and check: all its numbers; 5 and 6 how many fields and members of the index were staged; 7 the field S of the thread in
--       whose place it comes ('' = none is there); then a list of run ids and one of metadata as in index_metadata(), each with
--       its length before it
-- Reply: ok | exists (a thread is there; nothing was done) | stale (it changed since) | gone (the staging is not whole: it expired
--       or was evicted)
-- Idempotent: the field O of the thread holds the operation id of the copy that made it.
-- include: bytes arguments counts clock ttl thread staging buckets
local given, operation, counts, n_fields, n_members, replaced = ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
local runs, last_run, at = list(8, 1)
local meta, last_meta = list(at, 2)
check_key_types()
if call('EXISTS', T) + call('EXISTS', I) > 0 and (replaced == '' or call('HGET', T, 'O') == operation) then
  if call('HGET', T, 'O') ~= operation then return refused({ 'exists' }) end
  rewrite('O', operation)
  return { 'ok' }
end
if call('HGET', KEYS[8], 'S') ~= n_fields or call('ZCARD', KEYS[9]) ~= n_members then return refused({ 'gone' }) end
if replaced ~= '' then
  if call('HGET', T, 'S') ~= replaced then return refused({ 'stale' }) end
  local settings, left = call('HGET', T, 'T'), call('PTTL', T)
  local born, changes, others = counts:match('^(%d+) (%d+)( .*)$')
  call('HDEL', KEYS[8], 'T')
  if settings then call('HSET', KEYS[8], 'T', settings) end
  call('HSET', KEYS[8], 'O', operation, 'S', seal_line('1 ' .. born .. ' ' .. number(changes + 1) .. others .. ' ' .. token))
  call('RENAME', KEYS[8], T)
  call('UNLINK', KEYS[9])
  if left >= 0 then expire_at(now + left) else call('PERSIST', T) end
  return { 'ok' }
end
local line = '1 ' .. number(now_us) .. counts:match('^%d+( .*)$') .. ' ' .. token -- born now
call('HSET', KEYS[8], 'O', operation, 'S', seal_line(line))
call('UNLINK', TOMB)
call('RENAME', KEYS[8], T)
call('PERSIST', T)
if call('EXISTS', KEYS[9]) == 1 then call('RENAME', KEYS[9], I); call('PERSIST', I) end
repeat until drop_bucket_entries(thread, 1000)
call('ZREM', EXPIRY, thread)
local ttl, whose = parse_settings(call('HGET', T, 'T'))
apply_ttl(whose == RUN and 'r' .. number(ttl) or given, ttl, whose) -- a copy has the settings of its source
for k = runs, last_run do call('ZADD', RUNS, 0, 'R' .. ARGV[k] .. '\0' .. thread, 0, 'T' .. thread .. '\0' .. ARGV[k]) end
index_metadata(meta, last_meta)
update_bucket()
return { 'ok' }
