-- HMGET and writing commands over lists of any length: unpack() takes at most some 8,000 values.
local BATCH = 4000
local function long_hmget(key, fields, first, last) -- rare: what all fields hold, or those from first to last
  local out = {}
  first, last = first or 1, last or #fields
  for from = first, last, BATCH do
    local to = math.min(from + BATCH - 1, last)
    local got = call('HMGET', key, unpack(fields, from, to))
    for k = 1, to - from + 1 do out[from - first + k] = got[k] end
  end
  return out
end
local function in_batches(command, key, items, first, last) -- rare: all items, or those from first to last
  last = last or #items
  for from = first or 1, last, BATCH do
    call(command, key, unpack(items, from, math.min(from + BATCH - 1, last)))
  end
end
local function hmget(key, fields, first, last) -- what all fields hold, or those from first to last
  first, last = first or 1, last or #fields
  if first > last then return {} end
  if last - first < BATCH then return call('HMGET', key, unpack(fields, first, last)) end
  return long_hmget(key, fields, first, last)
end
local function hset(fields) -- fields of the thread with their contents
  if #fields > BATCH then in_batches('HSET', T, fields) else call('HSET', T, unpack(fields)) end
end
