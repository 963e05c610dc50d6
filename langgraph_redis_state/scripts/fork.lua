-- Puts the checkpoints of a fork: a new head of the root namespace, and of each namespace that remembers earlier calls and has
-- moved on since. They refer to chunks that are there.
-- ARGV: 1 thread, 2 the revision they were made on, 3 TTL as in apply_ttl(), 4 most bytes of the thread (0 = any), 5 number of
--       checkpoints, then for each its namespace, id, record (without stamp) and delta history ('' = none; with its stamp,
--       and its parts are there, being those of the origin's); number of metadata to index, then as in
--       index_metadata(); a list as in statement.lua; then pages and chunks as in resolve_parts()
-- Reply: ok | stale (the thread changed since: make them again) | missing, digests with their kind | large, bytes | none | lost |
--        counts | settings | stated (this writer makes no statements)
-- Idempotent: found again, they are a success. Cut in the middle: it is not, a script is atomic; others see the new heads of all
-- namespaces or of none.
-- include: bytes arguments batches record counts clock ttl thread receive buckets statement
local expected, given, most = ARGV[2], ARGV[3], tonumber(ARGV[4])
local first, last, at = list(5, 4)
local meta, last_meta, at = list(at, 2)
local stated, last_stated, parts = list(at, 1)
local state, s, ttl, whose, sealed = load_thread('Z')
if state ~= 'ok' then return { state } end
ensure_index(s)
local fields, records, histories = {}, {}, {}
for k = first, last, 4 do
  fields[#fields + 1] = 'C' .. ARGV[k] .. '\0' .. ARGV[k + 1]
  records[#records + 1], histories[#histories + 1] = ARGV[k + 2], ARGV[k + 3]
end
local there = call('HGET', T, fields[1])
if there and sub(there, STAMP + 1) == records[1] then
  rewrite('S', format_counts(s))
  return { 'ok' }
end
if expected ~= revision(s) then return { 'stale' } end
if (sealed or last_stated >= stated) and not is_restated(sealed, state, stated, last_stated) then
  return { last_stated < stated and 'stated' or 'stale' }
end
check_key_types()

local missing, written, bytes, chunks, unique = resolve_parts(records, parts)
if #missing > 1 then return missing end
s.chunks = s.chunks + chunks
s.unique = s.unique + unique
for k, record in ipairs(records) do
  bytes = bytes + #fields[k] + STAMP + #record -- the first brings the pages
  s.stored = s.stored + bytes
  s.versions = s.versions + 1
  s.checkpoints = s.checkpoints + 1
  add_to_counts(s, record, 1, 1)
  written[#written + 1] = fields[k]
  written[#written + 1] = stamp(now, s.versions, bytes, fields[k]) .. record
  bytes = 0
  if histories[k] ~= '' then
    written[#written + 1] = 'H' .. sub(fields[k], 2)
    written[#written + 1] = histories[k]
    s.stored = s.stored + #fields[k] + #histories[k]
    add_to_counts(s, histories[k], STAMP + 1, 1)
  end
end
if most > 0 and s.stored > most then return { 'large', number(s.stored) } end
s.changes = s.changes + 1
written[#written + 1] = 'S'
written[#written + 1] = format_counts(s)
in_batches('HSET', T, written)
restate(stated, last_stated)
for k, field in ipairs(fields) do
  local ns, id = split_field(field)
  call('ZADD', I, 0, field)
  if ns ~= '' then call('ZADD', I, 0, 'A' .. id .. '\0' .. ns) end
end
apply_ttl(given, ttl, whose)
index_metadata(meta, last_meta)
update_bucket()
return { 'ok' }
