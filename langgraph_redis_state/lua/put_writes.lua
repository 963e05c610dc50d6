-- Adds pending writes to a checkpoint, which need not be there yet.
-- ARGV: 1 thread, 2 namespace, 3 id, 4 TTL in ms (0 = none), 5 moment the id was made in ms ('' = unknown),
--       6 most bytes of the thread (0 = any), 7 number of writes, then for each: 'first' or 'last' (which of two with one marker wins), marker, record;
--       then pages and chunks as in received(). KEYS[8], if given: staging, as in put.
-- Reply: ok | missing, digests with their kind | deleted, when | large, bytes | lost | counts | settings
-- The field: format, flag "a record has references", then for each write its length (4), stamp, record (records.py).
-- Idempotent: a write with index >= 0 is kept as it came first, a special one is replaced by its equal.
local ns, id, ttl, made = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local place = ns .. '\0' .. id
local field = 'W' .. place
local most, n = tonumber(ARGV[6]), tonumber(ARGV[7])

local state, s, own, persist = open()
if not s or state == 'lost' then return { state } end
local deleted, tomb_left = call('GET', TOMB), 0
if deleted then
  local gone = call('HEXISTS', T, 'C' .. place) == 0
  if gone and made and made < tonumber(deleted) then return { 'deleted', deleted } end
  tomb_left = call('PTTL', TOMB)
end
call('ZCARD', RUNS); call('ZCARD', META); call('ZCARD', THREADS); call('ZCARD', EXPIRY)

local blob = call('HGET', T, field)
local before = blob and #blob + #field or 0
local function find(marker) -- first and last byte of the entry with that marker
  if not blob or not blob:find(marker, 3, true) then return nil end
  local at = 3
  while at < #blob do
    local size = u(blob, at, 4)
    local pages, chunks, refs = references(blob, at + 4 + STAMP)
    local mark = refs + 16 * (pages + chunks)
    if sub(blob, mark, mark + #marker - 1) == marker then return at, at + 3 + size end
    at = at + 4 + size
  end
end

local records, at = {}, 8
local take = {}
for k = 1, n do
  local policy, marker, record = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  if policy == 'last' or not find(marker) then
    records[#records + 1] = record
    take[#take + 1] = { marker, record }
  end
end
local missing, fields, bytes, chunks = received(records, at)
if #missing > 0 then table.insert(missing, 1, 'missing'); return missing end

if #take > 0 then
  s.rev = s.rev + 1
  local parts, has = { blob and sub(blob, 3) or '' }, (blob and byte(blob, 2)) or 0
  blob = '\1' .. char(has) .. parts[1]
  local tail, fresh = {}, {}
  for _, write in ipairs(take) do
    local marker, record = write[1], write[2]
    local pages, refs = references(record, 1)
    if pages + refs > 0 then has = 1 end
    local first, last = find(marker)
    if first then
      local old = sub(blob, first + 4 + STAMP, last)
      s.logical = s.logical - u(old, 11, 5)
      blob = sub(blob, 1, first - 1) .. sub(blob, last + 1)
    elseif fresh[marker] then -- twice in one call: the later one replaces the earlier
      s.logical = s.logical - u(tail[fresh[marker]], 15 + STAMP, 5)
      tail[fresh[marker]] = ''
    else
      s.writes = s.writes + 1
    end
    local content = b(now, 6) .. b(s.rev, 5) .. b(#record, 5)
    tail[#tail + 1] = b(STAMP + #record, 4) .. content .. check4(content .. thread .. '\0' .. field .. '\0' .. marker) .. record
    fresh[marker] = #tail
    s.logical = s.logical + u(record, 11, 5)
  end
  blob = '\1' .. char(has) .. sub(blob, 3) .. table.concat(tail)
  s.stored = s.stored + bytes + #blob + #field - before
  if most > 0 and s.stored > most then return { 'large', number(s.stored) } end
  s.chunks = s.chunks + chunks
  fields[#fields + 1] = field
  fields[#fields + 1] = blob
  fields[#fields + 1] = 'S'
  fields[#fields + 1] = counts_text(s)
  in_batches('HSET', T, fields)
end

keep_for(ttl, own, persist)
-- writes without any checkpoint after a deletion are probably a late echo: they go with the tombstone, unless a put comes
if tomb_left > 0 and s.checkpoints == 0 and call('PTTL', T) < 0 then expire_at(now + tomb_left) end
bookkeeping()
if KEYS[8] then call('UNLINK', KEYS[8]) end
return { 'ok' }
