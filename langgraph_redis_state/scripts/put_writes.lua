-- Adds pending writes to a checkpoint, which need not be there yet.
-- ARGV: 1 thread, 2 namespace, 3 id, 4 TTL as in apply_ttl(), 5 most bytes of the thread (0 = any), 6 number
--       of checkpoints that the run of a subgraph builds on, then their fields; number of writes, then for each: 'first' or
--       'last' (which of two with one marker wins), marker, record; then pages and chunks as in resolve_parts(). KEYS[8], if given:
--       staging, as in put.
-- Reply: ok | missing, digests with their kind | deleted, when | large, bytes | lost | counts | settings
--        writes (the list that is there is damaged, and must be changed)
-- The field is laid out as walk_writes() reads it. Adding does not look into what is there; replacing does, and checks it first.
-- Idempotent: a write with index >= 0 is kept as it came first, a special one is replaced by its equal.
-- include: bytes arguments batches record counts clock ttl thread receive staging buckets tombstone
local place, given, most = ARGV[2] .. '\0' .. ARGV[3], ARGV[4], tonumber(ARGV[5])
local guards, last_guard, at = list(6, 1)
local writes, last_write, parts = list(at, 3)
local field = 'W' .. place

local state, s, ttl, whose = load_thread()
if not s or state == 'lost' then return refused({ state }) end
local tomb_left = call('PTTL', TOMB)
if tomb_left ~= -2 then
  local late = gone('C' .. place)
  for k = guards, last_guard do late = late or gone(ARGV[k]) end
  if late then return refused_as_deleted('C' .. place) end
end
check_key_types()

local blob = call('HGET', T, field)
local before = blob and #blob + #field or 0
local positions -- marker -> position and size of the entry with it; read only when a marker may be there
local damaged = false
local function find(marker)
  if not blob or not blob:find(marker, 5, true) then return nil end
  if not positions then
    positions = {}
    local sound = walk_writes(blob, function(at, size)
      local pages, chunks, mark = references(blob, at + 4 + STAMP)
      mark = mark + 16 * (pages + chunks)
      local _, stop = read_id(blob, mark + 4)
      positions[sub(blob, mark, stop - 1)] = { at, size }
    end)
    if not sound then damaged = true; return nil end
  end
  return positions[marker]
end

local records, take = {}, {}
for k = writes, last_write, 3 do
  local policy, marker, record = ARGV[k], ARGV[k + 1], ARGV[k + 2]
  local there = find(marker)
  if damaged then return refused({ 'writes' }) end
  if policy == 'last' or not there then
    records[#records + 1] = record
    take[#take + 1] = { marker, record, there }
  end
end
local missing, fields, bytes, chunks, unique = resolve_parts(records, parts)
if #missing > 1 then return refused(missing) end

if #take > 0 then
  s.changes = s.changes + 1
  local count = blob and read_uint(blob, 2, 3) or 0
  local tail, fresh, replaced = {}, {}, {}
  for _, write in ipairs(take) do
    local marker, record, there = write[1], write[2], write[3]
    if fresh[marker] then -- twice in one call: the later one replaces the earlier
      add_to_counts(s, tail[fresh[marker]], 4 + STAMP + 1, -1)
      tail[fresh[marker]] = ''
    elseif there then
      replaced[#replaced + 1] = there
      add_to_counts(s, blob, there[1] + 4 + STAMP, -1)
    else
      count = count + 1
      s.writes = s.writes + 1
    end
    tail[#tail + 1] = write_uint(STAMP + #record, 4) .. stamp(now, s.changes, #record, field .. '\0' .. marker) .. record
    fresh[marker] = #tail
    add_to_counts(s, record, 1, 1)
  end
  local kept, from = {}, 5
  table.sort(replaced, function(x, y) return x[1] < y[1] end)
  for _, there in ipairs(replaced) do
    kept[#kept + 1] = sub(blob, from, there[1] - 1)
    from = there[1] + 4 + there[2]
  end
  kept[#kept + 1] = blob and sub(blob, from) or ''
  blob = '\1' .. write_uint(count, 3) .. table.concat(kept) .. table.concat(tail)
  s.stored = s.stored + bytes + #blob + #field - before
  if most > 0 and s.stored > most then return refused({ 'large', number(s.stored) }) end
  s.chunks = s.chunks + chunks
  s.unique = s.unique + unique
  fields[#fields + 1] = field
  fields[#fields + 1] = blob
  fields[#fields + 1] = 'S'
  fields[#fields + 1] = format_counts(s)
  in_batches('HSET', T, fields)
elseif blob then
  rewrite('S', format_counts(s))
end

if state == 'none' and call('ZREM', EXPIRY, thread) == 1 then repeat until drop_bucket_entries(thread, 1000) end -- of a thread that expired
apply_ttl(given, ttl, whose)
-- writes without any checkpoint after a deletion are probably a late echo: they go with the tombstone, unless a put comes
if tomb_left > 0 and s.checkpoints == 0 and whose ~= NEVER and call('PTTL', T) < 0 then expire_at(now + tomb_left) end
update_bucket()
if KEYS[8] then call('UNLINK', KEYS[8]) end
return { 'ok' }
