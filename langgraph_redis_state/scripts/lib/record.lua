-- Records as records.py writes them: stamp, header, references, ids.
-- include: bytes
local STAMP, FIXED = 20, 20 -- records.py
local function stamp(moment, count, bytes, place) -- of a record: see records.py
  local a, b, c, d = floor(moment / 16777216), moment % 16777216, floor(count / 16777216), count % 16777216
  local e, f = floor(bytes / 16777216), bytes % 16777216
  local content = char( -- write_uint() of 6, 5 and 5 bytes, in one call
    floor(a / 65536), floor(a / 256) % 256, a % 256, floor(b / 65536), floor(b / 256) % 256, b % 256,
    floor(c / 256) % 256, c % 256, floor(d / 65536), floor(d / 256) % 256, d % 256,
    floor(e / 256) % 256, e % 256, floor(f / 65536), floor(f / 256) % 256, f % 256
  )
  return content .. short_check(content .. thread .. '\0' .. place)
end
local function split_field(field) -- rare: 'C<ns>\0<id>' -> ns, id
  local at = field:find('%z[^%z]*$')
  return sub(field, 2, at - 1), sub(field, at + 1)
end
local function read_id(s, at) -- rare: an id in a header -> text, position behind it
  local n = byte(s, at)
  if n == 128 then
    local hex = sub(s, at + 1, at + 16):gsub('.', function(c) return string.format('%02x', byte(c)) end)
    return sub(hex, 1, 8) .. '-' .. sub(hex, 9, 12) .. '-' .. sub(hex, 13, 16) .. '-' .. sub(hex, 17, 20) .. '-' .. sub(hex, 21), at + 17
  elseif n == 127 then
    n = read_uint(s, at + 1, 4)
    return sub(s, at + 5, at + 4 + n), at + 5 + n
  end
  return sub(s, at + 1, at + n), at + 1 + n
end
local function references(s, at) -- header begins at `at`: number of pages, of chunks, position of the first
  local a, b, c, d = byte(s, at + 3, at + 6)
  return a * 256 + b, c * 256 + d, at + FIXED
end
