-- Reads items of one bucket of the store, then writes and removes others.
-- ARGV: a list of fields to read, its length before it; then for each write: field, record without its middle ('' = remove it), and if
--       it has vectors: their attributes, and each vector
-- Reply: as store_read; nothing is read or written if it is: lost | unindexed | dims, how many the vectors of this bucket have
-- May be repeated: the items are as they were wanted, with a new time of update. Removes before it writes if the caller names
-- removals first; up to 20 items that expired go with each call.
-- include: arguments store
local first, last, at = list(1, 1)
local state = check_bucket()
if state ~= 'ok' then return { state } end
local expiring, fields, contents, wrote = call('ZCARD', EXPIRES) > 0, {}, {}, false
while at <= #ARGV do
  fields[#fields + 1], contents[#contents + 1] = ARGV[at], at + 1
  local vectors = ARGV[at + 1] == '' and 0 or read_uint(ARGV[at + 1], 4, 2)
  if vectors > 0 and call('EXISTS', VECTORS) == 1 then
    local dims = redis.call(VDIM, VECTORS)
    if dims * 4 ~= #ARGV[at + 3] then return { 'dims', dims } end
  end
  at = at + 2 + (vectors > 0 and vectors + 1 or 0)
end
local found, due = living(ARGV, first, last)
local old = hmget(ITEMS, fields)
local micros = char(floor(now_us / 281474976710656)) .. write_uint(now_us % 281474976710656, 6)
for k, field in ipairs(fields) do
  local place = contents[k]
  local content, was = ARGV[place], old[k]
  if content == '' then
    if was then
      remove_item(field, was)
      wrote = true
    end
  else
    local created = micros
    if was then
      if is_whole(field, was) and not (expiring and expired(field)) then created = sub(was, 12, 18) end
      drop_from_order(field, was)
    end
    local top = sub(content, 1, 11) .. created .. micros
    local record = top .. short_check(top .. field) .. sub(content, 12)
    call('HSET', ITEMS, field, record)
    wrote = true
    call('ZADD', ORDER, 0, order_member(field, record))
    for n = 1, read_uint(content, 4, 2) do
      redis.call(VADD, VECTORS, 'FP32', ARGV[place + 1 + n], element(field, n - 1), 'NOQUANT', 'SETATTR', ARGV[place + 1])
    end
    local ttl = read_uint(content, 6, 6)
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
if not wrote then -- a removal that is repeated writes something too, as WAIT needs it; ZREM first, which a full server allows
  call('ZREM', EXPIRES, ''); call('ZADD', EXPIRES, 0, ''); call('ZREM', EXPIRES, '')
end
return { 'ok', found, due }
