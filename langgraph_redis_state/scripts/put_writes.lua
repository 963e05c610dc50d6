-- Adds pending writes to a checkpoint, which need not be there yet.
-- ARGV: 1 thread, 2 namespace, 3 id, 4 what they follow, as in following.lua, 5 if they do, the counts with them, 6 TTL as in
--       apply_ttl(), 7 most bytes of the thread (0 = any), 8 number of checkpoints that the run of a subgraph builds on, then
--       their fields; number of writes, all of one task, then for each:
--       'first' or 'last' (which of two with one marker wins), marker, record; a list as in statement.lua; then pages and chunks as in resolve_parts(). KEYS[8], if given:
--       staging, as in put.
-- Reply: ok, and where they did not follow: the counts if a write may follow ('' = no), how many fields there are,
--        what they would have had to find, as in put
--        missing, digests with their kind | deleted, when | large, bytes | lost | counts | settings
--        writes (the list that is there is damaged, and must be changed) | stated: as in statement_reply()
-- Where they go is in writes.lua. Adding does not look into what is there; replacing does, and checks it first.
-- Idempotent: a write with index >= 0 is kept as it came first, a special one is replaced by its equal.
-- first: following next_writes
-- include: bytes arguments batches record counts clock ttl thread receive writes staging buckets tombstone statement
local place, given, most = ARGV[2] .. '\0' .. ARGV[3], ARGV[6], tonumber(ARGV[7])
local guards, last_guard, at = list(8, 1)
local writes, last_write, at = list(at, 3)
local stated, last_stated, parts = list(at, 1)
local field = 'W' .. place
local LIST_MIN = 512

local state, s, ttl, whose, blob, directory, sealed = load_thread(field, field .. '\0', 'Z')
if not s or state == 'lost' then return answered(refused({ state })) end
if (sealed or last_stated >= stated) and not is_restated(sealed, state, stated, last_stated, place) then
  return answered(statement_reply(sealed, state, stated, last_stated, place)) -- what is staged stays for the next try
end
if s.checkpoints > 0 and call('ZCARD', I) == 0 then ensure_index(s) end
local tomb_left = call('PTTL', TOMB)
if tomb_left ~= -2 then
  local reply = refused_as_deleted('C' .. place, guards, last_guard)
  if reply then return answered(reply) end
end
local left = call('PTTL', T)
local list = { field, blob or false } -- field, content, then writes that come
local segment = { field .. '\0', false }
local damaged = false
if directory then
  segment[1] = segment[1] .. segment_name(ARGV[writes + 1])
  segment[2] = call('HGET', T, segment[1])
  damaged = byte(directory) ~= 2 or (#directory - 4) % NAME ~= 0 or (segment[2] and not entries_at(segment[2]))
end

local records, take, size, refers = {}, {}, 0, false
for k = writes, last_write, 3 do
  local policy, marker, record = ARGV[k], ARGV[k + 1], ARGV[k + 2]
  local where, there = list, nil
  -- a list is read only where the marker may be in it
  if list[2] and list[2]:find(marker, 5, true) then there = position_in(list, marker) end
  if not there and segment[2] then
    where = segment
    if there ~= false and segment[2]:find(marker, 5, true) then there = position_in(segment, marker) end
  end
  if damaged or there == false then return answered(refused({ 'writes' })) end
  if policy == 'last' or not there then
    records[#records + 1] = record
    take[#take + 1] = { marker, record, there, there and where }
    size = size + 4 + STAMP + #record
    refers = refers or sub(record, 4, 7) ~= '\0\0\0\0'
  end
end
local missing, fields, bytes, chunks, unique = nil, {}, 0, 0, 0
if refers or ARGV[parts] ~= '0' or ARGV[parts + 1] ~= '0' then
  missing, fields, bytes, chunks, unique = resolve_rarely(records, parts)
  if #missing > 1 then return answered(refused(missing)) end
end

local function add(where) -- the writes that come to a list or segment; how many more it has then
  local blob = where[2] or where.new or '\1\0\0\0'
  local from, count, before = entries_at(blob) or 5, read_uint(blob, 2, 3), s.writes
  local tail, fresh, replaced = {}, {}, nil
  for k = 3, #where do
    local marker, record, there = where[k][1], where[k][2], where[k][3]
    if fresh[marker] then -- twice in one call: the later one replaces the earlier
      add_to_counts(s, tail[fresh[marker]], 4 + STAMP + 1, -1)
      tail[fresh[marker]] = ''
    elseif there then
      replaced = replaced or {}
      replaced[#replaced + 1] = there
      add_to_counts(s, blob, there[1] + 4 + STAMP, -1)
    else
      s.writes = s.writes + 1
    end
    tail[#tail + 1] = write_uint(STAMP + #record, 4) .. stamp(now, s.changes, #record, field .. '\0' .. marker) .. record
    fresh[marker] = #tail
    add_to_counts(s, record, 1, 1)
  end
  local more = s.writes - before
  local entries = replaced and without(blob, from, replaced) or sub(blob, from)
  local head = sub(blob, 1, 1) .. write_uint(count + more, 3) .. sub(blob, 5, from - 1)
  local content, n = head .. entries .. table.concat(tail), #fields
  fields[n + 1], fields[n + 2] = where[1], content
  bytes = bytes + #content - (where[2] and #where[2] or -#where[1])
  return more
end
if #take > 0 then
  s.changes = s.changes + 1
  -- a list that is small beside what comes is written again with it: up to four writes of one size stand in one field
  local fits = not directory and #(list[2] or '') <= math.max(LIST_MIN, 3.5 * size)
  for _, each in ipairs(take) do
    local where = each[4] or (fits and list or segment)
    where[#where + 1] = each
  end
  if #list > 2 then add(list) end
  if #segment > 2 then
    if not directory then segment[1] = segment[1] .. segment_name(ARGV[writes + 1]) end
    local names, total = directory and sub(directory, 5) or '', read_uint(directory or list[2], 2, 3)
    if not segment[2] then
      if #names == NAME * NAMES then segment.new, names = '\3\0\0\0' .. names, '' end
      names = names .. sub(segment[1], -NAME)
    end
    local content = '\2' .. write_uint(total + add(segment), 3) .. names
    fields[#fields + 1] = field .. '\0'
    fields[#fields + 1] = content
    bytes = bytes + #content - (directory and #directory or -#field - 1)
  end
  s.stored = s.stored + bytes
  if most > 0 and s.stored > most then return answered(refused({ 'large', number(s.stored) })) end
  s.chunks = s.chunks + chunks
  s.unique = s.unique + unique
elseif is_restated_anew(sealed, stated, last_stated) then
  s.changes = s.changes + 1
end
local counts = format_counts(s)
if #take > 0 then
  fields[#fields + 1] = 'S'
  fields[#fields + 1] = counts
else
  rewrite('S', counts)
end
local found = string.format('%08x', call('HLEN', T)) .. s.ending
local overdue = state == 'none' and call('ZSCORE', EXPIRY, thread)
local expiring, new = begin_update(overdue, overdue)
if #take > 0 then hset(fields) end
if last_stated >= stated then restate(stated, last_stated) end
if overdue then -- of a thread that expired
  call('ZREM', EXPIRY, thread)
  repeat until drop_bucket_entries(thread, 1000)
end
local moved = (given ~= '0' or whose ~= '' or left >= 0) and apply_ttl(given, ttl, whose)
-- writes without any checkpoint after a deletion are probably a late echo: they go with the tombstone, unless a put comes
if tomb_left > 0 and s.checkpoints == 0 and whose ~= NEVER and call('PTTL', T) < 0 then expire_at(now + tomb_left); moved = true end
if expiring then tidy_bucket(3) end
if moved or new or entered or expiring or left ~= -1 then expire_bucket() end
if KEYS[8] then call('UNLINK', KEYS[8]) end
local followed = not (moved or tomb_left ~= -2 or sealed or last_stated >= stated or left >= 0)
return answered({ 'ok', followed and counts or '', call('HLEN', T), found })
