-- One page of checkpoints, newest first by id; over all namespaces it merges the root's range with the other namespaces'.
-- ARGV: 1 thread, 2 TTL in ms to refresh (0 = the thread's own only, -1 = none, -2 = write nothing), 3 'one' | 'all' namespaces, 4 namespace (for 'one'),
--       5 cursor: an id, only checkpoints below it ('' = from the newest), 6 cursor namespace, or '-' to leave out the
--       cursor's id in every namespace, 7 most entries, 8 most bytes, 9 '1' = with pages and chunks, 10 '1' = with statements
-- Reply: ok, { ns, id, record or nil, writes or nil, frozen entry or nil }, pages, chunks, revision, 1 if there may be more,
--        tags with their fields (only without chunks, on the first page), now in ms, pending writes that the thread has,
--        also of checkpoints that are not there, statement or nil | lost | unindexed | counts
-- include: bytes batches record counts clock ttl thread order collect
local ttl, mode, ns, cursor, cursor_ns = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local most, budget, whole, stated = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1', ARGV[10] == '1'
local state = check_thread(ttl == -2)
if state == 'lost' or state == 'unindexed' then return { state } end
if state == 'none' then return { 'ok', {}, {}, {}, '0', 0, {}, number(now), 0, false } end
local s = parse_counts(call('HGET', T, 'S'))
if not s and not whole then return { 'counts' } end -- a choice made on this page needs its revision
local stored = s and s.stored or budget + 1

local function below(space, including)
  local upper = cursor == '' and '[C' .. space .. '\0\255' or (including and '[' or '(') .. 'C' .. space .. '\0' .. cursor
  return call('ZREVRANGEBYLEX', I, upper, '[C' .. space .. '\0', 'LIMIT', 0, most)
end
local places = {} -- { ns, id }
if mode == 'one' then
  for _, member in ipairs(below(ns, false)) do places[#places + 1] = { ns, sub(member, #ns + 3) } end
else
  -- order: id, then namespace, both descending; the root is the smallest namespace
  local roots = below('', cursor_ns ~= '-' and cursor_ns ~= '')
  local upper = cursor == '' and '[A\255' or '(A' .. cursor .. '\0' .. (cursor_ns == '-' and '' or cursor_ns)
  local others = call('ZREVRANGEBYLEX', I, upper, '[A', 'LIMIT', 0, most)
  local r, o = 1, 1
  while #places < most and (roots[r] or others[o]) do
    local root_id = roots[r] and sub(roots[r], 3)
    local other_id, other_ns
    if others[o] then
      local at = others[o]:find('%z')
      other_id, other_ns = sub(others[o], 2, at - 1), sub(others[o], at + 1)
    end
    if root_id and (not other_id or is_greater(root_id, other_id)) then
      places[#places + 1] = { '', root_id }; r = r + 1
    else
      places[#places + 1] = { other_ns, other_id }; o = o + 1
    end
  end
end

local found, refs, bytes = {}, collect_parts(), 0
local fields = {}
for _, place in ipairs(places) do
  local where = place[1] .. '\0' .. place[2]
  fields[#fields + 1] = 'C' .. where
  fields[#fields + 1] = 'W' .. where
  fields[#fields + 1] = 'W' .. where .. '\0'
end
local contents = hmget(T, fields)
local more = #places >= most and 1 or 0
for k, place in ipairs(places) do
  local record = contents[3 * k - 2]
  local writes = all_writes(place[1] .. '\0' .. place[2], contents[3 * k - 1], contents[3 * k])
  bytes = bytes + #(record or '') + #(writes or '')
  if whole and record and stored > budget then
    -- an estimate: the first record brings its whole state, each further one what it once added
    bytes = bytes + (k == 1 and math.min(read_uint(record, STAMP + 11, 5), stored) or read_uint(record, 12, 5))
  end
  if bytes > budget and #found > 0 then more = 1; break end
  if whole then
    if record then refs.add(record) end
    bytes = bytes + refs.add_writes(writes)
  end
  found[#found + 1] = { place[1], place[2], record, writes, stated and call('HGET', T, 'F' .. place[1] .. '\0' .. place[2]) }
end
if #found > 0 and ttl >= 0 then refresh_ttl(ttl) end
local pages, chunks = refs.result()
local tags = {}
if not whole and cursor == '' then
  local names = call('ZRANGEBYLEX', I, '[G', '[G\255')
  local values = hmget(T, names)
  for k, name in ipairs(names) do tags[2 * k - 1], tags[2 * k] = name, values[k] end
end
return { 'ok', found, pages, chunks, s and revision(s) or '', more, tags, number(now), s and number(s.writes) or 0, stated and call('HGET', T, 'Z') }
