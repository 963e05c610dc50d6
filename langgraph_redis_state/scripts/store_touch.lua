-- Lets items of one bucket of the store live for their whole TTL again, after a read.
-- ARGV: fields
-- Reply: ok. What is not there, or expired, stays so.
-- include: store
for _, field in ipairs(ARGV) do
  local record = call('HGET', ITEMS, field)
  local ttl = record and read_uint(record, 6, 6) or 0
  if ttl > 0 and not expired(field) then call('ZADD', EXPIRES, number(now + ttl), field) end
end
expire_items()
return { 'ok' }
