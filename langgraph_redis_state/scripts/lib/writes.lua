-- The pending writes of a checkpoint, as thread_fields.py reads them too. Nothing is rewritten that is large beside what comes:
--   W<ns>\0<id>          a list: '\1', number of writes (3), then for each its length (4), stamp and record
--   W<ns>\0<id>\0        if the list is not all, the directory: '\2', number of writes in all fields of the checkpoint (3), then
--                        the names of its newest segments, at most NAMES
--   W<ns>\0<id>\0<name>  a segment, the writes of one task: a list. Where the directory was full when the segment came, '\3', number
--                        (3), the names that the directory had, then the writes
-- The name is the beginning of the SHA-1 of the task's id, so that a task's writes are found at once. Two tasks may share a segment.
-- include: bytes batches record
local NAME, NAMES = 6, 16
local function entries_at(content) -- position of the first write of a list or segment; nil if it is neither
  local format = byte(content)
  return format == 1 and 5 or format == 3 and 5 + NAME * NAMES or nil
end
local function segment_name(marker) return sub(redis.sha1hex(sub(marker, 5)), 1, NAME) end
-- Calls visit(position, length) for each write; false if the list is not what was written, which must be known before anything is
-- cut out of it.
local function walk_writes(blob, visit)
  local at, n = entries_at(blob), 0
  if #blob < 4 or not at then return false end
  while at <= #blob do
    if at + 3 + STAMP + FIXED > #blob then return false end
    local size = read_uint(blob, at, 4)
    if at + 3 + size > #blob or size ~= STAMP + read_uint(blob, at + 15, 5) then return false end -- the stamp knows the size too
    visit(at, size)
    at, n = at + 4 + size, n + 1
  end
  return n == read_uint(blob, 2, 3)
end
local function positions_of(blob) -- rare: position and size of each write, by its marker; nil if the list is damaged
  local positions = {}
  local sound = walk_writes(blob, function(at, size)
    local pages, chunks, mark = references(blob, at + 4 + STAMP)
    mark = mark + 16 * (pages + chunks)
    local _, stop = read_id(blob, mark + 4)
    positions[sub(blob, mark, stop - 1)] = { at, size }
  end)
  return sound and positions or nil
end
local function position_in(where, marker) -- rare: position and size of a write in { field, content }; false: the content is damaged
  if where.positions == nil then where.positions = positions_of(where[2]) or false end
  return where.positions and where.positions[marker]
end
local function without(blob, from, gone) -- rare: the writes from that position on, but for these positions and sizes
  local kept = {}
  table.sort(gone, function(x, y) return x[1] < y[1] end)
  for _, each in ipairs(gone) do
    kept[#kept + 1] = sub(blob, from, each[1] - 1)
    from = each[1] + 4 + each[2]
  end
  return table.concat(kept) .. sub(blob, from)
end
-- All writes of a checkpoint as one list, of which the directory says the number: if some are gone, the reader sees it.
local function joined_writes(place, list, directory) -- rare
  if byte(directory) ~= 2 then return directory end
  local pieces, seen, names = { '\1' .. sub(directory, 2, 4) }, {}, sub(directory, 5)
  local function add(content)
    local at = entries_at(content)
    if at then pieces[#pieces + 1] = sub(content, at) end
  end
  if list then add(list) end
  while names do
    local fields = {}
    for at = 1, #names, NAME do
      local name = sub(names, at, at + NAME - 1)
      if not seen[name] then seen[name] = true; fields[#fields + 1] = 'W' .. place .. '\0' .. name end -- damaged, it may name itself
    end
    names = nil
    for _, content in ipairs(hmget(T, fields)) do
      if content then
        add(content)
        if byte(content) == 3 then names = sub(content, 5, 4 + NAME * NAMES) end
      end
    end
  end
  return table.concat(pieces)
end
local function all_writes(place, list, directory) return directory and joined_writes(place, list, directory) or list end
