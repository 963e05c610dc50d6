-- Writes one checkpoint: chunks, pages, record, counts, then the index.
-- ARGV: 1 thread, 2 namespace, 3 id, 4 record (without stamp), 5 what it follows, as in following.lua, 6 if it does, the counts with
--       it, 7 TTL as in apply_ttl(), 8 run id ('' = none), 9 the id that must be the newest of the namespace ('' = none yet, '-' =
--       any), and behind a NUL, if given, the revision that the thread must be at, 10 most bytes of the thread (0 = any), 11 what
--       the reply shall say: 'roots', 'all' or '', 12 number of metadata to index, then as in index_metadata();
--       number of checkpoints the run builds on, then for each its field C<ns>\0<id>; a list as in statement.lua; then pages and
--       chunks as in resolve_parts().
-- KEYS[8], if given: the staging hash that holds some of the chunks; removed when they are in place, or when the put is refused.
-- Reply: ok, and where it followed: if asked, root checkpoints | ok, the id that was the newest of the namespace, version, purged (1 =
--        a stale index was dropped), bytes the thread takes, the counts if a write may follow ('' = no), how many fields there are,
--        what a write that follows would have had to find: how many fields there were (8 hex digits), and how the counts ended; if asked, root checkpoints it has; revision, created_at of this one (ms), bytes new with it, ms until the thread expires
--        missing, digests with their kind | deleted, when | conflict, newest id | large, bytes | lost | counts | settings
--        stated: as in statement_reply()
-- After a deletion a put is refused if the tombstone names it, or something it builds on, and then the tombstone names it too.
-- What it builds on may also be on its way still (a subgraph can overtake its parent): if neither the thread nor the tombstone
-- has it, the put is accepted, and if no root checkpoint ever comes it expires with the tombstone.
-- Idempotent: the same record again changes nothing but the TTL. Cut in the middle: it is not, a script is atomic.
-- first: following next_put
-- include: bytes arguments batches record counts clock ttl thread order receive staging buckets tombstone statement
local ns, id, record, given, run, expected, most = ARGV[2], ARGV[3], ARGV[4], ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
local say = ARGV[11]
local meta, last_meta, at = list(12, 2)
local guards, last_guard, at = list(at, 1)
local stated, last_stated, parts = list(at, 1)
local field = 'C' .. ns .. '\0' .. id
local expected_at
if expected ~= '-' then expected_at = expected:match('%z(.*)') end
if expected_at then expected = expected:match('^%Z*') end

local state, s, ttl, whose, old, sealed = load_thread(field, 'Z')
if not s then return answered(refused({ state })) end
if (sealed or last_stated >= stated) and not is_restated(sealed, state, stated, last_stated, sub(field, 2)) then
  return answered(statement_reply(sealed, state, stated, last_stated, sub(field, 2))) -- what is staged stays for the next try
end
local orphan, tombstone = false, call('EXISTS', TOMB) == 1
if tombstone then
  local reply = refused_as_deleted(field, guards, last_guard)
  if reply then return answered(reply) end
  for k = guards, last_guard do orphan = orphan or call('HEXISTS', T, ARGV[k]) == 0 end
end
if state == 'lost' and last_guard >= guards then return answered(refused({ 'lost' })) end
local head = newest(ns)
if not head then -- is the index there at all?
  ensure_index(s)
  head = newest(ns) or ''
end
local rootless = (ns == '' and head or newest('') or '') == ''
-- a root checkpoint of a run whose thread was deleted was refused, so this one begins the thread anew
local first = rootless and (ns == '' or not orphan)
local left = call('PTTL', T)

local missing, fields, bytes, chunks, unique = resolve_parts({ record }, parts)
if #missing > 1 then return answered(refused(missing)) end

local same = old and sub(old, STAMP + 1) == record
if not same and expected ~= '-' then
  local in_turn = head == expected and (old or not is_greater(head, id))
  if not in_turn or (expected_at and expected_at ~= revision(s)) then return answered(refused({ 'conflict', head })) end
end
local version = old and read_uint(old, 7, 5) or s.versions + 1
local created = old and read_uint(old, 1, 6) or now
local added = same and read_uint(old, 12, 5)
if not same then
  bytes = bytes + #field + #record + STAMP
  if most > 0 and s.stored + bytes > most then return answered(refused({ 'large', number(s.stored + bytes) })) end
  added = math.max(bytes, 0) -- less than none where it replaced chunks that took more
  fields[#fields + 1] = field
  fields[#fields + 1] = stamp(created, version, added, field) .. record
  s.changes = s.changes + 1
  s.stored = s.stored + bytes
  s.chunks = s.chunks + chunks
  s.unique = s.unique + unique
  add_to_counts(s, record, 1, 1)
  if old then
    s.stored = s.stored - #field - #old
    add_to_counts(s, old, STAMP + 1, -1)
  else
    s.versions = version
    s.checkpoints = s.checkpoints + 1
  end
end
if same and is_restated_anew(sealed, stated, last_stated) then s.changes = s.changes + 1 end
local counts = format_counts(s)
if same then
  rewrite('S', counts)
else
  fields[#fields + 1] = 'S'
  fields[#fields + 1] = counts
end
local found = string.format('%08x', call('HLEN', T)) .. s.ending
local overdue = first and call('ZSCORE', EXPIRY, thread)
local expiring, new = begin_update(run ~= '' or overdue, last_meta >= meta or overdue)
if not same then hset(fields) end
if last_stated >= stated then restate(stated, last_stated) end

-- from here on the write cannot fail: a full server lets a script end that has begun to write
local purged = 0
if state == 'lost' then call('UNLINK', I); purged, head = 1, '' end
call('ZADD', I, 0, field)
if ns ~= '' then call('ZADD', I, 0, 'A' .. id .. '\0' .. ns) end
if first and left ~= -1 then
  -- what came before the first checkpoint may have brought an expiry of its own
  call('PERSIST', T); call('PERSIST', I)
  left = -1
end
if overdue then
  if state ~= 'ok' then repeat until drop_bucket_entries(thread, 1000) end
  call('ZREM', EXPIRY, thread)
end
local moved = (given ~= '0' or whose ~= '' or left ~= -1) and apply_ttl(given, ttl, whose)
-- Where there is a root checkpoint, the new run has begun, and this belongs to it. Where there is none, this may be of the deleted
-- run. It expires with its writes, if they came first and so made no index, or else with the tombstone.
if orphan and rootless and ns ~= '' and whose ~= NEVER and call('PTTL', I) < 0 then
  local early = call('PTTL', T)
  expire_at(now + (early < 0 and call('PTTL', TOMB) or early))
  moved = true
end
if run ~= '' then
  call('ZADD', RUNS, 0, 'R' .. run .. '\0' .. thread, 0, 'T' .. thread .. '\0' .. run)
end
if last_meta >= meta then index_metadata(meta, last_meta) end
if expiring then tidy_bucket(3) end
if moved or new or entered or expiring or state ~= 'ok' or left ~= -1 then expire_bucket() end
if KEYS[8] then call('UNLINK', KEYS[8]) end
local followed = not (moved or tombstone or sealed or last_stated >= stated or left ~= -1)
local reply = { 'ok', head, version, purged, number(s.stored), followed and counts or '', call('HLEN', T), found }
if say ~= '' then reply[9] = call('ZLEXCOUNT', I, '[C\0', '[C\0\255') end
if say == 'all' then reply[10], reply[11], reply[12], reply[13] = revision(s), created, added, call('PTTL', T) end
return answered(reply)
