-- Reads checkpoints by id, with their writes and all they refer to. Writes nothing, unless the TTL is due for a refresh.
-- ARGV: 1 thread, 2 TTL in ms to refresh (0 = the thread's own only, -1 = none, -2 = write nothing), 3 digests of pages that the reader has with all
--       their chunks, 4 digests of further chunks that it has, neither of which are sent; 5 '1': with statements; then pairs: namespace, id ('' = the
--       newest of the namespace)
-- Reply: ok, { ns, id, record or nil, writes or nil, frozen entry or nil } for each that the index or the hash knows, pages,
--        chunks, statement or nil | lost | unindexed
--   A record that is nil although the index has it was lost; the client says so.
-- include: ttl thread order collect
local ttl, have_pages, have_chunks, stated, first = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5] == '1', 6
local found, refs, state = {}, collect_parts(have_pages, have_chunks)
for k = first, #ARGV, 2 do
  local ns, id = ARGV[k], ARGV[k + 1]
  local newest_id = id == '' and newest(ns)
  local place = ns .. '\0' .. (newest_id or id)
  local got = (newest_id or id ~= '') and call('HMGET', T, 'C' .. place, 'W' .. place, 'W' .. place .. '\0')
  if not (got and got[1]) or (not newest_id and call('ZCARD', I) == 0) then -- is the thread there, and its index?
    state = state or check_thread(ttl == -2)
    if state == 'lost' or state == 'unindexed' then return { state } end
    if state == 'ok' and not got then -- the index may have been rebuilt
      id = newest(ns)
      place = id and ns .. '\0' .. id
      got = id and call('HMGET', T, 'C' .. place, 'W' .. place, 'W' .. place .. '\0')
    end
  end
  if got and (got[1] or call('ZSCORE', I, 'C' .. place)) then
    local writes = all_writes(place, got[2], got[3])
    if got[1] then refs.add(got[1]) end
    refs.add_writes(writes)
    found[#found + 1] = { ns, newest_id or id, got[1], writes, stated and call('HGET', T, 'F' .. place) }
  end
end
if #found > 0 and ttl >= 0 and call('PTTL', T) >= 0 then refresh_ttl(ttl) end
local pages, chunks = refs.result()
return { 'ok', found, pages, chunks, stated and call('HGET', T, 'Z') }
