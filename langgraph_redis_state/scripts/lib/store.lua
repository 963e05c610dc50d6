-- A bucket of the store. Its scripts take its keys instead of those of a thread, and their ARGV begins with the first argument:
--   KEYS[1] items  hash  <namespace>\0\0<key> -> record      KEYS[3] expires  sorted set  fields of the items that expire, ms
--   KEYS[4] vectors  vector set, of stores with an index only: <place, 2 bytes><field>
--   KEYS[2] order  sorted set, scores 0  <namespace>\0\0<updated, 7 bytes, each 255 - x><key>: by namespace, newest first
-- A record (store/items.py): format, flags, key id, vectors (2), ttl in ms (6) | created, updated in us (7 each), check (4) | checksum,
-- body.
-- The middle is made here. The labels of a namespace stand with NUL between them, and hold none.
-- include: bytes batches clock
local ITEMS, ORDER, EXPIRES, VECTORS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- Not every server has vector sets: these are in no `call`, and so among the rights of stores with an index only.
local VADD, VREM, VSIM, VCARD, VDIM = 'VADD', 'VREM', 'VSIM', 'VCARD', 'VDIM'
local function is_whole(field, record) return short_check(sub(record, 1, 25) .. field) == sub(record, 26, 29) end
local function element(field, n) return char(floor(n / 256), n % 256) .. field end
local function check_bucket() -- 'ok', or which of its keys is gone; one of the wrong type fails here or in the next command
  local there = call('EXISTS', ITEMS) == 1
  if there == (call('ZCARD', ORDER) > 0) then return 'ok' end
  return there and 'unindexed' or 'lost'
end
local function order_member(field, record)
  local split = field:find('%z%z')
  local a, b, c, d, e, f, g = byte(record, 19, 25)
  return sub(field, 1, split + 1) .. char(255 - a, 255 - b, 255 - c, 255 - d, 255 - e, 255 - f, 255 - g) .. sub(field, split + 2)
end
local function field_of(member)
  local split = member:find('%z%z')
  return sub(member, 1, split + 1) .. sub(member, split + 9)
end
-- An item that expired is gone for every reader, whenever it is removed. One whose moment was lost lives until a read sets it anew.
local function expired(field)
  local moment = call('ZSCORE', EXPIRES, field)
  return moment and tonumber(moment) <= now
end
local function is_due(field, record) -- whether its TTL is to be refreshed: when less than 90 % remain, so that most reads write nothing
  local ttl = read_uint(record, 6, 6)
  local moment = ttl > 0 and call('ZSCORE', EXPIRES, field)
  return ttl > 0 and (not moment or moment - now < 0.9 * ttl)
end
local function living(fields, first, last) -- records, false for what is not there; places of those that are due
  local found, due, n = hmget(ITEMS, fields, first, last), {}, 0
  for k = first, last do
    n = n + 1
    local record = found[n]
    if record and read_uint(record, 6, 6) > 0 then
      if expired(fields[k]) then found[n] = false elseif is_due(fields[k], record) then due[#due + 1] = n end
    end
  end
  return found, due
end
local function find_in_order(field) -- rare: removes a member whose record is damaged and does not say where it stands
  local space = sub(field, 1, field:find('%z%z') + 1)
  local at = '[' .. space
  repeat
    local members = call('ZRANGEBYLEX', ORDER, at, '(' .. sub(space, 1, -2) .. '\1', 'LIMIT', 0, 1000)
    for _, member in ipairs(members) do
      if field_of(member) == field then call('ZREM', ORDER, member) end
    end
    at = '(' .. (members[#members] or '')
  until #members < 1000
end
local function drop_vectors(field, record) -- rare
  for n = 0, read_uint(record, 4, 2) - 1 do redis.call(VREM, VECTORS, element(field, n)) end
end
local function drop_from_order(field, record) -- and what there is of vectors
  if sub(record, 4, 5) ~= '\0\0' and is_whole(field, record) then drop_vectors(field, record) end
  if #record < 25 or call('ZREM', ORDER, order_member(field, record)) == 0 then find_in_order(field) end
end
local function remove_item(field, record) -- rare
  if record then drop_from_order(field, record) end
  call('HDEL', ITEMS, field)
  call('ZREM', EXPIRES, field)
end
local function tidy_items(most) -- rare: removes so many that expired; how many there were
  local overdue = call('ZRANGEBYSCORE', EXPIRES, '-inf', number(now), 'LIMIT', 0, most)
  for _, field in ipairs(overdue) do remove_item(field, call('HGET', ITEMS, field)) end
  return #overdue
end
-- If all items of a bucket expire, so do its keys, all at one moment: at the earliest with the last item, at the latest two
-- days after it. So memory becomes free though nobody writes, and a bucket in use seldom moves the moment.
local DAY = 86400000
local function expire_items() -- rare
  local last = false
  if call('ZCARD', EXPIRES) == call('ZCARD', ORDER) then last = tonumber(call('ZRANGE', EXPIRES, -1, -1, 'WITHSCORES')[2] or false) end
  local due = false
  for _, index in ipairs({ ITEMS, ORDER, EXPIRES, VECTORS }) do
    local left = call('PTTL', index)
    if left ~= -2 then due = due or (left >= 0 and (not last or now + left < last or now + left > last + 2 * DAY)) or (left == -1 and last) end
  end
  if not due then return end
  for _, index in ipairs({ ITEMS, ORDER, EXPIRES, VECTORS }) do
    if last then call('PEXPIREAT', index, number(last + DAY)) else call('PERSIST', index) end
  end
end
