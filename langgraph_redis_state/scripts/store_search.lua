-- Reads a page of the items of one bucket whose namespaces begin alike: in the order of namespaces, in each the newest first.
-- ARGV: 1 and 2 bounds of the order, 3 most members, 4 of how many no record is wanted, 5 most bytes of records (one is always read)
-- Reply: ok, members, records of those behind the first ones that are not wanted, places of records that are due for a refresh, the
--        lower bound of the next page ('' = there is none) | lost | unindexed
-- Writes nothing.
-- include: store
local most, skipped, budget = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local state = check_bucket()
if state ~= 'ok' then return { state } end
local members = call('ZRANGEBYLEX', ORDER, ARGV[1], ARGV[2], 'LIMIT', 0, most)
local expiring, kept = call('ZCARD', EXPIRES) > 0, {}
for _, member in ipairs(members) do
  if not (expiring and expired(field_of(member))) then kept[#kept + 1] = member end
end
local records, due, bytes = {}, {}, 0
for k = skipped + 1, #kept do
  if bytes >= budget then break end
  local field = field_of(kept[k])
  local record = call('HGET', ITEMS, field)
  if record then
    bytes = bytes + #record
    if is_due(field, record) then due[#due + 1] = #records + 1 end
  end
  records[#records + 1] = record
end
return { 'ok', kept, records, due, #members == most and '(' .. members[most] or '' }
