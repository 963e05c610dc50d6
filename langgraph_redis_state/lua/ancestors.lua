-- Walks the parent chain of a checkpoint: its ancestors, nearest first, with their writes and what the writes refer to.
-- ARGV: 1 thread, 2 namespace, 3 id ('' = newest): the walk begins at its parent, 4 most ancestors, 5 most bytes
-- Reply: ok, { ns, id, record, writes or nil }, pages, chunks, next ('' = the root was reached), next is there (1 or 0),
--        the checkpoint it began at: { ns, id, record } | none | lost
local function parent_of(record)
  local pages, chunks, at = references(record, STAMP + 1)
  return (read_id(record, at + 16 * (pages + chunks)))
end
local ns, id, most, budget = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local state = look()
if state == 'lost' then return { state } end
if state == 'none' then return { 'none' } end
if id == '' then id = newest(ns) end
local record = id and call('HGET', T, 'C' .. ns .. '\0' .. id)
if not record then
  if id and call('ZSCORE', I, 'C' .. ns .. '\0' .. id) then return { 'lost' } end
  return { 'none' }
end
local start = { ns, id, record, false }
local found, refs, bytes = {}, collector(), 0
local parent = parent_of(record)
record = nil
while parent ~= '' do
  record = call('HGET', T, 'C' .. ns .. '\0' .. parent)
  if not record or #found >= most or bytes > budget then break end
  local writes = call('HGET', T, 'W' .. ns .. '\0' .. parent)
  bytes = bytes + refs.add_writes(writes) + #record + #(writes or '')
  found[#found + 1] = { ns, parent, record, writes }
  parent = parent_of(record)
  record = nil
end
local pages, chunks = refs.result()
return { 'ok', found, pages, chunks, parent, record and 1 or 0, start }
