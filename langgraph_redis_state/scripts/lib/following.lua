-- A write that follows the last one of its own client. If the counts (field S) are those that the client left, nobody wrote in
-- between, so what the verb below looks for is known: that the thread lives, has all parts that the client refers to, no settings,
-- no expiry, no tombstone and no statement. What may change without a write is looked for here: fields (there are as many as
-- there were), the index, the bucket's entry, an expiry that somebody gave the hash. If anything is otherwise, or a thread of the
-- bucket expires, nothing is done here, and the verb goes its whole way. This stands before the library, whose functions are then
-- not made.
-- `follows`: version or revision, and bytes, as the stamp has them (10), how many fields the thread had (8 hex digits), and how the
-- counts ended; '' = does not follow.
local entered = false -- whether the bucket had no entry of the thread
local function bring_parts(at, looks, fields) -- pages and chunks as in resolve_parts()
  for _, kind in ipairs({ 'P', 'D' }) do
    local last = at + 2 * ARGV[at]
    for k = at + 1, last, 2 do
      local field = kind .. ARGV[k]
      looks[#looks + 1], fields[#fields + 1], fields[#fields + 2] = field, field, ARGV[k + 1]
    end
    at = last + 1
  end
end
local function is_unchanged(follows, looks) -- `looks`: S, T, Z, then fields that must not be there
  local got = call('HMGET', T, unpack(looks))
  if not got[1] or sub(got[1], 18 - #follows) ~= sub(follows, 19) then return false end
  for k = 2, #looks do
    if got[k] then return false end
  end
  return call('HLEN', T) == tonumber(sub(follows, 11, 18), 16) and call('ZCARD', I) > 0 and call('ZCARD', EXPIRY) == 0
    and call('PTTL', T) == -1
end
local function enter_bucket() -- the six bytes of the server's clock in stamps
  local clock = call('TIME')
  local ms = floor(clock[2] / 1000)
  entered = call('ZADD', THREADS, string.format('%s%03d', clock[1], ms), thread) == 1
  ms = clock[1] * 1000 + ms
  local a, b = floor(ms / 16777216), ms % 16777216
  return char(floor(a / 65536), floor(a / 256) % 256, a % 256, floor(b / 65536), floor(b / 256) % 256, b % 256)
end
local function stamped(content, place) -- as stamp() makes it
  local n = tonumber(sub(redis.sha1hex(content .. thread .. '\0' .. place), 1, 8), 16)
  return content .. char(floor(n / 16777216), floor(n / 65536) % 256, floor(n / 256) % 256, n % 256)
end
