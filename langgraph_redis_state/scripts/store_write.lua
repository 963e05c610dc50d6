-- Reads items of one bucket of the store, then writes and removes others.
-- ARGV: a list of fields to read, its length before it; then pairs: field, record without its middle ('' = remove it)
-- Reply: as store_read; nothing is read or written if it is: lost | unindexed
-- May be repeated: the items are as they were wanted, with a new time of update. Removes before it writes if the caller names
-- removals first; up to 20 items that expired go with each call.
-- include: arguments store
local first, last, at = list(1, 1)
local state = check_bucket()
if state ~= 'ok' then return { state } end
local expiring, fields, wrote = call('ZCARD', EXPIRES) > 0, {}, false
for k = at, #ARGV, 2 do fields[#fields + 1] = ARGV[k] end
local found, due = living(ARGV, first, last)
local old = hmget(ITEMS, fields)
local micros = char(floor(now_us / 281474976710656)) .. write_uint(now_us % 281474976710656, 6)
for k, field in ipairs(fields) do
  local content, was = ARGV[at + 2 * k - 1], old[k]
  if content == '' then
    if was then
      remove_item(field, was)
      wrote = true
    end
  else
    local created = micros
    if was then
      local known = short_check(sub(was, 1, 24) .. field) == sub(was, 25, 28) and not (expiring and expired(field))
      if known then created = sub(was, 11, 17) end
      drop_from_order(field, was)
    end
    local top = sub(content, 1, 10) .. created .. micros
    local record = top .. short_check(top .. field) .. sub(content, 11)
    call('HSET', ITEMS, field, record)
    wrote = true
    call('ZADD', ORDER, 0, order_member(field, record))
    local ttl = read_uint(content, 5, 6)
    if ttl > 0 then
      call('ZADD', EXPIRES, number(now + ttl), field)
      expiring = true
    elseif expiring then
      call('ZREM', EXPIRES, field)
    end
  end
end
if expiring or call('PTTL', ITEMS) >= 0 then
  tidy_items(20)
  expire_items()
end
if not wrote then -- a removal that is repeated writes something too, as WAIT needs it
  call('ZADD', EXPIRES, 0, ''); call('ZREM', EXPIRES, '')
end
return { 'ok', found, due }
