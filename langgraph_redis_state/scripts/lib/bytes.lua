-- Big-endian integers and the four-byte check, by plain string functions: servers differ in cmsgpack and struct.
local SMALL = 2147483648 -- below it '%d' is the same on every server, and takes a third of the time
local function number(n) -- as text; `n` may be text of a score
  n = n + 0
  return string.format(n < SMALL and n > -SMALL and '%d' or '%.0f', n)
end
local function read_uint(s, at, n) -- big-endian unsigned of 2 to 5 bytes, or 6 (written out: they are read in every loop)
  local v, w, x, y, z, last = byte(s, at, at + n - 1)
  if n == 2 then return v * 256 + w end
  v = (v * 256 + w) * 256 + x
  if n == 3 then return v end
  v = v * 256 + y
  if n == 4 then return v end
  v = v * 256 + z
  if n == 5 then return v end
  return v * 256 + last
end
local function write_uint(v, n) -- the same, of 3 to 6 bytes
  local low, high = v % 16777216, floor(v / 16777216)
  local tail = char(floor(low / 65536), floor(low / 256) % 256, low % 256)
  if n == 3 then return tail end
  if n == 4 then return char(high % 256) .. tail end
  if n == 5 then return char(floor(high / 256) % 256, high % 256) .. tail end
  return char(floor(high / 65536) % 256, floor(high / 256) % 256, high % 256) .. tail
end
local function short_check(content) -- codec.place_check
  local n = tonumber(sub(redis.sha1hex(content), 1, 8), 16)
  return char(floor(n / 16777216), floor(n / 65536) % 256, floor(n / 256) % 256, n % 256)
end
