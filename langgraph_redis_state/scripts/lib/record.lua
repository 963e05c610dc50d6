-- Records as records.py writes them: stamp, header, references, ids.
-- include: bytes
local STAMP, FIXED = 20, 20 -- records.py
local function stamp(moment, count, bytes, place) -- of a record: see records.py
  local content = write_uint(moment, 6) .. write_uint(count, 5) .. write_uint(bytes, 5)
  return content .. short_check(content .. thread .. '\0' .. place)
end
local function split_field(field) -- 'C<ns>\0<id>' -> ns, id
  local at = field:find('%z[^%z]*$')
  return sub(field, 2, at - 1), sub(field, at + 1)
end
local function read_id(s, at) -- an id in a header -> text, position behind it
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
  return read_uint(s, at + 3, 2), read_uint(s, at + 5, 2), at + FIXED
end
