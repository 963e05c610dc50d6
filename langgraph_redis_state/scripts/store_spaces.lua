-- Names the namespaces of one bucket of the store that hold items, in order: one look-up for each, and one for each expired item.
-- ARGV: 1 and 2 bounds of the order, 3 most namespaces, 4 most look-ups, 5 so many labels are named at most ('0' = all)
-- Reply: ok, namespaces, the lower bound of the next page ('' = there is none) | lost | unindexed
-- Writes nothing.
-- include: store
local at, most, left, depth = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local state = check_bucket()
if state ~= 'ok' then return { state } end
local expiring, found = call('ZCARD', EXPIRES) > 0, {}
while #found < most and left > 0 do
  local member = call('ZRANGEBYLEX', ORDER, at, ARGV[2], 'LIMIT', 0, 1)[1]
  if not member then
    at = ''
    break
  end
  left = left - 1
  if expiring and expired(field_of(member)) then
    at = '(' .. member
  else
    local last = member:find('%z%z') - 1
    local name, from = sub(member, 1, last), 0
    at = '[' .. name .. '\0\1' -- behind all items of this namespace
    for _ = 1, depth do from = from and name:find('%z', from + 1) end
    if depth > 0 and from then -- behind all namespaces below the labels that are named
      name = sub(name, 1, from - 1)
      at = '[' .. name .. '\1'
    end
    found[#found + 1] = name
  end
end
return { 'ok', found, at }
