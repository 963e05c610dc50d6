-- Makes the order of one bucket of the store say what its items say: after an eviction, or damage.
-- ARGV: a list of members of the order, its length before it: those that no item bears out are removed; then fields of items:
--       their places, and moments of expiry that were lost, are written
-- Reply: ok, how many members were removed or added
-- include: arguments store
local first, last, at = list(1, 1)
local changed = 0
for k = first, last do
  local field = field_of(ARGV[k])
  local record = call('HGET', ITEMS, field)
  if not record or order_member(field, record) ~= ARGV[k] then changed = changed + call('ZREM', ORDER, ARGV[k]) end
  if not record then call('ZREM', EXPIRES, field) end
end
for k = at, #ARGV do
  local record = call('HGET', ITEMS, ARGV[k])
  if record then
    changed = changed + call('ZADD', ORDER, 0, order_member(ARGV[k], record))
    local ttl = read_uint(record, 6, 6)
    if ttl > 0 and not call('ZSCORE', EXPIRES, ARGV[k]) then call('ZADD', EXPIRES, number(now + ttl), ARGV[k]) end
  end
end
expire_items()
return { 'ok', changed }
