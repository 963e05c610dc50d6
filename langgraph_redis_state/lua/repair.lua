-- Mends a thread as the client decided on a reading of it (faults.py), if it is still as it was then.
-- ARGV: 1 thread, 2 and 3 its fields S and T at that reading ('' = none), 4 what S shall say ('' = the thread goes), 5 its last
--       activity in ms, used if the bucket knows none; then lists, each with its length before it: numbers of keys that are
--       of the wrong type and go; fields to remove; fields to write, each with its content; members to remove from the
--       index, to add to it; the same for the bucket's runs; the same for its m
-- Reply: ok | stale (the thread changed since: read it again)
-- Both keys get the expiry of the hash. Idempotent: done before, S says what it shall.
local function field(name)
  local content = redis.pcall('HGET', T, name)
  return type(content) == 'string' and content or ''
end
local counts = field('S')
if counts ~= ARGV[2] or field('T') ~= ARGV[3] then
  if counts ~= ARGV[4] then return { 'stale' } end
  if counts ~= '' then write_again('S', counts) end
  return { 'ok' }
end
probe()

local at = 6
local function list(width)
  local items, n = {}, tonumber(ARGV[at])
  for k = 1, n * width do items[k] = ARGV[at + k] end
  at = at + 1 + n * width
  return items
end
for _, k in ipairs(list(1)) do
  local key = KEYS[tonumber(k)]
  call('UNLINK', key)
end
in_batches('HDEL', T, list(1))
in_batches('HSET', T, list(2))
for _, index in ipairs({ I, RUNS, META }) do
  in_batches('ZREM', index, list(1))
  for _, member in ipairs(list(1)) do call('ZADD', index, 0, member) end
end
if ARGV[4] == '' then
  drop_thread()
  return { 'ok' }
end
call('HSET', T, 'S', ARGV[4])
if not call('ZSCORE', THREADS, thread) then call('ZADD', THREADS, ARGV[5], thread) end
local left = call('PTTL', T)
if left >= 0 then
  expire_at(now + left)
else
  call('PERSIST', I)
  call('ZREM', EXPIRY, thread)
end
expire_bucket()
return { 'ok' }
