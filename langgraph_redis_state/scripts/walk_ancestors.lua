-- Walks the parent chain of a checkpoint: its ancestors, nearest first, with their writes and what the writes refer to. The walk
-- ends at a checkpoint that has a delta history (H, see deltas.py): that stands for all its ancestors.
-- ARGV: 1 thread, 2 namespace, 3 id ('' = newest): the walk begins at its parent, 4 most ancestors, 5 most bytes,
--       6 '1' = with chunks, '0' = with pages only, 7 '1' = with statements
-- Reply: ok, { ns, id, record, writes or nil, frozen entry or nil }, pages, chunks, next ('' = the root was reached), next is there
--        (1 or 0), the checkpoint it began at: { ns, id, record, writes or nil, frozen entry or nil }, writes only with
--        statements, delta history of the last checkpoint walked (or of that it began at),
--        or nil, with what it refers to among the pages and chunks, statement or nil | none | lost
-- include: bytes record thread order collect
local ns, id, most, budget, whole, stated = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7] == '1'
local state = check_thread()
if state == 'lost' then return { state } end
if state == 'none' then return { 'none' } end
if id == '' then id = newest(ns) end
local record = id and call('HGET', T, 'C' .. ns .. '\0' .. id)
if not record then
  if id and call('ZSCORE', I, 'C' .. ns .. '\0' .. id) then return { 'lost' } end
  return { 'none' }
end
local function parent_of(of)
  local pages, chunks, at = references(of, STAMP + 1)
  return (read_id(of, at + 16 * (pages + chunks)))
end
local function looked_at(at) -- parent, delta history or false
  local above = parent_of(record)
  local history = above ~= '' and read_uint(record, STAMP + 8, 3) > 0 and call('HGET', T, 'H' .. ns .. '\0' .. at)
  return above, history and parent_of(history) == above and history
end
local start = { ns, id, record, false, false }
local function frozen(id) return stated and call('HGET', T, 'F' .. ns .. '\0' .. id) end
if stated then
  local place = ns .. '\0' .. id
  local got = call('HMGET', T, 'W' .. place, 'W' .. place .. '\0')
  start[4], start[5] = all_writes(place, got[1], got[2]), frozen(id)
end
local found, refs, bytes = {}, collect_parts(), 0
local parent, history = looked_at(id)
record = nil
while parent ~= '' and not history do
  local place = ns .. '\0' .. parent
  local got = call('HMGET', T, 'C' .. place, 'W' .. place, 'W' .. place .. '\0')
  record = got[1]
  if not record or #found >= most or bytes > budget then break end
  local writes = all_writes(place, got[2], got[3])
  bytes = bytes + refs.add_writes(writes) + #record + #(writes or '')
  found[#found + 1] = { ns, parent, record, writes, frozen(parent) }
  parent, history = looked_at(parent)
  record = nil
end
if history then refs.add(history) end
local pages, chunks = refs.result(not whole)
return { 'ok', found, pages, chunks, parent, record and 1 or 0, start, history, stated and call('HGET', T, 'Z') }
