-- Mends a thread as the client decided on a reading of it (faults.py), if it is still as it was then.
-- ARGV: 1 thread, 2 and 3 its fields S and T at that reading ('' = none), 4 what S shall say ('' = the thread goes), 5 its last
--       activity in ms, used if the bucket knows none; then lists, each with its length before it: numbers of keys that are
--       of the wrong type and go; fields to remove; fields to write, each with its content; members to remove from the
--       index, to add to it; the same for the bucket's runs; the same for its m
-- Reply: ok | stale (the thread changed since: read it again)
-- Both keys get the expiry of the hash. Idempotent: done before, S says what it shall.
-- include: arguments batches clock ttl thread buckets
local before, settings, after, active = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local function field(name)
  local content = redis.pcall('HGET', T, name)
  return type(content) == 'string' and content or ''
end
local counts = field('S')
if counts ~= before or field('T') ~= settings then
  if counts ~= after then return { 'stale' } end
  if counts ~= '' then rewrite('S', counts) end
  return { 'ok' }
end
check_key_types()

local wrong, last_wrong, at = list(6, 1)
for k = wrong, last_wrong do
  local key = KEYS[tonumber(ARGV[k])]
  call('UNLINK', key)
end
local function next_list(width)
  local first, last
  first, last, at = list(at, width)
  return first, last
end
in_batches('HDEL', T, ARGV, next_list(1))
in_batches('HSET', T, ARGV, next_list(2))
for _, index in ipairs({ I, RUNS, META }) do
  in_batches('ZREM', index, ARGV, next_list(1))
  local first, last = next_list(1)
  for k = first, last do call('ZADD', index, 0, ARGV[k]) end
end
if after == '' then
  drop_thread()
  return { 'ok' }
end
call('HSET', T, 'S', after)
if not call('ZSCORE', THREADS, thread) then call('ZADD', THREADS, active, thread) end
local left = call('PTTL', T)
if left >= 0 then
  expire_at(now + left)
else
  call('PERSIST', I)
  call('ZREM', EXPIRY, thread)
end
expire_bucket()
return { 'ok' }
