-- The indexes of the bucket: threads, expiry, runs, metadata.
-- include: bytes batches clock ttl
-- Before anything is written: a key of the wrong type fails here. Puts look only at what they write (begin_update).
local function check_key_types() -- rare
  call('ZCARD', THREADS); call('ZCARD', EXPIRY); call('ZCARD', RUNS); call('ZCARD', META)
end
-- Bucket indexes after a write, and a little tidying: up to three threads that expired are forgotten.
local function drop_bucket_entries(id, limit) -- rare: true when nothing of it is left in the bucket's indexes
  local left = 0
  for _, index in ipairs({ RUNS, META }) do
    local reverse = call('ZRANGEBYLEX', index, '[T' .. id .. '\0', '[T' .. id .. '\0\255', 'LIMIT', 0, limit)
    local gone = {}
    for _, member in ipairs(reverse) do
      gone[#gone + 1] = member
      gone[#gone + 1] = (index == RUNS and 'R' or 'V') .. sub(member, #id + 3) .. '\0' .. id
    end
    in_batches('ZREM', index, gone)
    if #reverse >= limit then left = left + 1 end
  end
  return left == 0
end
local function index_metadata(first, last) -- rare: metadata in ARGV: key and value each ('' = none: it is removed)
  for k = first, last, 2 do -- one value of each key: a new one moves the thread
    local reverse = 'T' .. thread .. '\0' .. ARGV[k] .. '\0'
    local entry = reverse .. ARGV[k + 1]
    local there = false
    for _, was in ipairs(call('ZRANGEBYLEX', META, '[' .. reverse, '[' .. reverse .. '\255')) do
      if was == entry then
        there = true
      else
        call('ZREM', META, was, 'V' .. sub(was, #thread + 3) .. '\0' .. thread)
      end
    end
    if not there and ARGV[k + 1] ~= '' then call('ZADD', META, 0, entry, 0, 'V' .. ARGV[k] .. '\0' .. ARGV[k + 1] .. '\0' .. thread) end
  end
end
local function drop_thread() -- rare
  call('UNLINK', T, I)
  call('ZREM', THREADS, thread)
  call('ZREM', EXPIRY, thread)
  repeat until drop_bucket_entries(thread, 1000)
  expire_bucket()
end
local function tidy_bucket(most) -- rare: forgets so many threads that expired; true if there may be more
  local overdue = call('ZRANGEBYSCORE', EXPIRY, '-inf', '(' .. number(now), 'LIMIT', 0, most)
  local more = #overdue == most
  for _, id in ipairs(overdue) do
    if id ~= thread then
      if drop_bucket_entries(id, 100) then
        call('ZREM', EXPIRY, id); call('ZREM', THREADS, id)
      else
        more = true
      end
    end
  end
  return more
end
-- The first of what a put writes, so that a key of the wrong type fails before anything is written. `runs`, `meta`: whether these
-- will be written too. Says whether anything in the bucket expires, and whether the thread is new in it.
local function begin_update(runs, meta)
  if runs then call('ZCARD', RUNS) end
  if meta then call('ZCARD', META) end
  local expiring = call('ZCARD', EXPIRY) > 0
  return expiring, call('ZADD', THREADS, string.format('%s%03d', clock[1], now % 1000), thread) == 1
end
local function update_bucket() -- after a write of another kind, that looked at the types of all keys
  call('ZADD', THREADS, number(now), thread)
  tidy_bucket(3)
  expire_bucket()
end
