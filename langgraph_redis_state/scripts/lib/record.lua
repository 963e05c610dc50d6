-- Records as records.py writes them: stamp, header, references, ids, and the list of pending writes.
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
-- W: '\1', number of writes (3), then for each its length (4), stamp and record. Calls visit(position, length) for each;
-- false if it is not what was written, which must be known before anything is cut out of it.
local function walk_writes(blob, visit)
  if #blob < 4 or byte(blob, 1) ~= 1 then return false end
  local at, n = 5, 0
  while at <= #blob do
    if at + 3 + STAMP + FIXED > #blob then return false end
    local size = read_uint(blob, at, 4)
    if at + 3 + size > #blob or size ~= STAMP + read_uint(blob, at + 15, 5) then return false end -- the stamp knows the size too
    visit(at, size)
    at, n = at + 4 + size, n + 1
  end
  return n == read_uint(blob, 2, 3)
end
