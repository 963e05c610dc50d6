-- Removes checkpoints with their pending writes, tags, and the chunks and pages that nothing else refers to. What goes and what
-- it counts for was worked out by the client from verified headers (removal_plan.py) on the revision it names, so nothing
-- else is looked at. Either what goes is taken out, or both keys are made anew from what stays, whichever is less: to leave
-- ten checkpoints of thousands is as short as to take ten away. Where both are much, what stays is in staging already
-- (stage_remaining.lua, stage.lua), and takes the place of both keys by one rename each.
-- KEYS[8] staged hash, KEYS[9] staged index: with 'staged', or where staging was begun and given up; what is left of it goes.
-- ARGV: 1 thread, 2 that revision, 3 'drop' what is listed | 'keep' it, with T and O, and nothing else | 'staged': keep what is
--       in staging likewise; 4 to 10 by how much fewer: checkpoints, writes, chunks, stored, logical, unique, referred (the
--       last seven of COUNTS); then six lists, each with its length before it: fields (staged: one item, how many); members of
--       the index (likewise); run ids that the thread has no more; fields to write, each with its content (pending writes, and
--       delta histories with parts of them that are not there yet); chunks and pages that go and are not in those numbers yet,
--       at most a few hundred; metadata as in index_metadata(); then a list as in statement.lua
-- Reply: ok | stale (the thread changed since: choose again) | gone (the staging is not whole: it was evicted or expired) | none |
--        counts | settings | stated (this writer makes no statements)
-- Repeated after its reply was lost it is stale, and there is nothing left to choose. Cut in the middle: it is not, a script is
-- atomic; others see the thread before or after.
-- Reads everything before it writes anything. Frees memory first and writes after: it works on a full server, which lets a
-- script end that has begun to write.
-- include: arguments batches counts clock ttl thread receive staging buckets statement
local expected, rebuild, staged = ARGV[2], ARGV[3] ~= 'drop', ARGV[3] == 'staged'
local FEWER = 4 -- position of the first
local state, s, _, _, sealed = load_thread('Z')
if not s then return refused({ state }) end
if state ~= 'ok' then return refused({ 'none' }) end
ensure_index(s)
if expected ~= revision(s) then return refused({ 'stale' }) end
local left = call('PTTL', T)
check_key_types()
for k = TOTALS, #COUNTS do s[COUNTS[k]] = s[COUNTS[k]] - ARGV[FEWER + k - TOTALS] end

local fields, last_field, at = list(FEWER + #COUNTS - TOTALS + 1, 1)
local members, last_member, at = list(at, 1)
local runs, last_run, at = list(at, 1)
local written, last_written, at = list(at, 2)
local parts, last_part, at = list(at, 1)
local meta, last_meta, at = list(at, 2)
local stated, last_stated = list(at, 1)
if (sealed or last_stated >= stated) and not is_restated(sealed, state, stated, last_stated) then
  return refused({ last_stated < stated and 'stated' or 'stale' })
end
if staged and (call('HGET', KEYS[8], 'S') ~= ARGV[fields] or call('ZCARD', KEYS[9]) ~= tonumber(ARGV[members])) then
  return refused({ 'gone' })
end
local stored, plain = measure_parts(ARGV, parts, last_part)
s.stored, s.unique = s.stored - stored, s.unique - plain
local forgotten = {}
for k = runs, last_run do
  forgotten[#forgotten + 1] = 'R' .. ARGV[k] .. '\0' .. thread
  forgotten[#forgotten + 1] = 'T' .. thread .. '\0' .. ARGV[k]
end

if rebuild then
  local kept, index = {}, {}
  local function keep(names, first, last)
    for k, content in ipairs(hmget(T, names, first, last)) do
      if content then
        kept[#kept + 1] = names[first + k - 1]
        kept[#kept + 1] = content
      end
    end
  end
  keep({ 'T', 'O' }, 1, 2) -- as they are now: they change without the revision
  if staged then
    call('UNLINK', T, I)
    call('RENAME', KEYS[8], T); call('PERSIST', T)
    if call('EXISTS', KEYS[9]) == 1 then call('RENAME', KEYS[9], I); call('PERSIST', I) end
  else
    keep(ARGV, fields, last_field)
    for k = members, last_member do
      index[#index + 1] = 0
      index[#index + 1] = ARGV[k]
    end
    drop_staging()
    call('UNLINK', T, I)
  end
  in_batches('HSET', T, kept)
  in_batches('ZADD', I, index)
else
  drop_staging()
  in_batches('HDEL', T, ARGV, fields, last_field)
  in_batches('ZREM', I, ARGV, members, last_member)
end
in_batches('HSET', T, ARGV, written, last_written)
restate(stated, last_stated)
in_batches('ZREM', RUNS, forgotten)
s.changes = s.changes + 1
call('HSET', T, 'S', format_counts(s))
if s.checkpoints == 0 and s.writes == 0 then
  drop_thread()
else
  if rebuild and left >= 0 then expire_at(now + left) end
  index_metadata(meta, last_meta)
  expire_bucket()
end
return { 'ok' }
