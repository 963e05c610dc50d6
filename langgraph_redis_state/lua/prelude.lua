-- Stands before every verb. All scripts take the keys of one thread, in this order, and ARGV[1] is the thread id:
--   KEYS[1] t  hash        the thread              KEYS[5] runs     sorted set  runs of the bucket
--   KEYS[2] i  sorted set  its index               KEYS[6] m        sorted set  metadata of the bucket
--   KEYS[3] threads  sorted set  last activity     KEYS[7] x        sorted set  tombstone
--   KEYS[4] expiry   sorted set  when they expire  KEYS[8..9]       staging, where a verb uses it
-- Replies are arrays whose first element is a word: 'ok', or what was in the way. The last of ARGV is the call's token, which no
-- verb sees and which is put behind its reply (effects.py): so the client knows whose answer it got.
-- Only plain string functions: no cmsgpack, no struct. unpack() takes at most some 8,000 values, hence BATCH.
local T, I, THREADS, EXPIRY, RUNS, META, TOMB = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local thread, token = ARGV[1], table.remove(ARGV)
local call, byte, sub, char, floor = redis.call, string.byte, string.sub, string.char, math.floor
local BATCH = 4000
local STAMP, FIXED = 20, 20 -- records.py

local clock = call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)
local now_us = clock[1] * 1000000 + clock[2]

local function number(n) return string.format('%.0f', n) end
local function u(s, at, n) -- big-endian unsigned of 2 to 5 bytes, or 6 (written out: they are read in every loop)
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
local function b(v, n) -- the same, of 3 to 6 bytes
  local low, high = v % 16777216, floor(v / 16777216)
  local tail = char(floor(low / 65536), floor(low / 256) % 256, low % 256)
  if n == 3 then return tail end
  if n == 4 then return char(high % 256) .. tail end
  if n == 5 then return char(floor(high / 256) % 256, high % 256) .. tail end
  return char(floor(high / 65536) % 256, floor(high / 256) % 256, high % 256) .. tail
end
local function check4(content) -- codec.place_check
  local n = tonumber(sub(redis.sha1hex(content), 1, 8), 16)
  return char(floor(n / 16777216), floor(n / 65536) % 256, floor(n / 256) % 256, n % 256)
end
local function stamp(moment, count, bytes, place) -- of a record: see records.py
  local content = b(moment, 6) .. b(count, 5) .. b(bytes, 5)
  return content .. check4(content .. thread .. '\0' .. place)
end
local function sealed(line) -- S or T, with its check: see records.py
  return line .. ' ' .. sub(redis.sha1hex(line .. thread), 1, 8)
end
local function hmget(key, fields, first, last) -- what all fields hold, or those from first to last
  local out = {}
  first, last = first or 1, last or #fields
  for from = first, last, BATCH do
    local to = math.min(from + BATCH - 1, last)
    local got = call('HMGET', key, unpack(fields, from, to))
    for k = 1, to - from + 1 do out[from - first + k] = got[k] end
  end
  return out
end
local function in_batches(command, key, items, first, last) -- all items, or those from first to last
  last = last or #items
  for from = first or 1, last, BATCH do
    call(command, key, unpack(items, from, math.min(from + BATCH - 1, last)))
  end
end
local function split(field) -- 'C<ns>\0<id>' -> ns, id
  local at = field:find('%z[^%z]*$')
  return sub(field, 2, at - 1), sub(field, at + 1)
end
local function read_id(s, at) -- an id in a header -> text, position behind it
  local n = byte(s, at)
  if n == 128 then
    local hex = sub(s, at + 1, at + 16):gsub('.', function(c) return string.format('%02x', byte(c)) end)
    return sub(hex, 1, 8) .. '-' .. sub(hex, 9, 12) .. '-' .. sub(hex, 13, 16) .. '-' .. sub(hex, 17, 20) .. '-' .. sub(hex, 21), at + 17
  elseif n == 127 then
    n = u(s, at + 1, 4)
    return sub(s, at + 5, at + 4 + n), at + 5 + n
  end
  return sub(s, at + 1, at + n), at + 1 + n
end
local function references(s, at) -- header begins at `at`: number of pages, of chunks, position of the first
  return u(s, at + 3, 2), u(s, at + 5, 2), at + FIXED
end

-- W: '\1', number of writes (3), then for each its length (4), stamp and record. Calls visit(position, length) for each;
-- false if it is not what was written, which must be known before anything is cut out of it.
local function walk(blob, visit)
  if #blob < 4 or byte(blob, 1) ~= 1 then return false end
  local at, n = 5, 0
  while at <= #blob do
    if at + 3 + STAMP + FIXED > #blob then return false end
    local size = u(blob, at, 4)
    if at + 3 + size > #blob or size ~= STAMP + u(blob, at + 15, 5) then return false end -- the stamp knows the size too
    visit(at, size)
    at, n = at + 4 + size, n + 1
  end
  return n == u(blob, 2, 3)
end

-- S: '1 born revision versions checkpoints writes chunks stored logical unique referred check'; the last two in plain bytes of
-- chunks, each chunk once and as often as records refer to it: what sharing saves
local function counts_of(raw)
  if not raw then -- born now, so that a revision means this thread, and not one that was deleted and had the same id
    return {
      born = now_us, rev = 0, versions = 0, checkpoints = 0, writes = 0, chunks = 0, stored = 0, logical = 0, unique = 0, referred = 0
    }
  end
  local line, born, rev, versions, checkpoints, writes, chunks, stored, logical, unique, referred =
    raw:match('^(1' .. (' (%d+)'):rep(10) .. ') %x+$')
  if not line or sealed(line) ~= raw then return nil end
  return {
    born = tonumber(born), rev = tonumber(rev), versions = tonumber(versions), checkpoints = tonumber(checkpoints),
    writes = tonumber(writes), chunks = tonumber(chunks), stored = tonumber(stored), logical = tonumber(logical),
    unique = tonumber(unique), referred = tonumber(referred)
  }
end
local function counts_text(s)
  return sealed(string.format(
    '1 %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f',
    s.born, s.rev, s.versions, s.checkpoints, s.writes, s.chunks, s.stored, s.logical, s.unique, s.referred
  ))
end

local function revision(s) return number(s.born) .. ' ' .. number(s.rev) end

local function newest(ns) -- greatest id of a namespace, or nil
  local member = call('ZREVRANGEBYLEX', I, '[C' .. ns .. '\0\255', '[C' .. ns .. '\0', 'LIMIT', 0, 1)[1]
  if member then return sub(member, #ns + 3) end
end

-- T: '1 whose ttl check': whose = 0: the TTL in ms is the thread's own; 1: it never expires; 2: the TTL is that of the run that
-- wrote last. Not there: that of the saver.
local OWN, NEVER, RUN = '0', '1', '2'
local function settings_of(raw) -- TTL (0 = none), whose it is; nil if the field is damaged
  if not raw then return 0, '' end
  local line, whose, ttl = raw:match('^(1 ([012]) (%d+)) %x+$')
  if not line or sealed(line) ~= raw then return nil end
  return tonumber(ttl), whose
end
local function set(whose, ttl) call('HSET', T, 'T', sealed('1 ' .. whose .. ' ' .. number(ttl))) end
local function expire_at(moment)
  call('PEXPIREAT', T, number(moment))
  call('PEXPIREAT', I, number(moment))
  call('ZADD', EXPIRY, number(moment), thread)
end
local function never_expire()
  call('PERSIST', T); call('PERSIST', I); call('ZREM', EXPIRY, thread)
end
-- The bucket's keys hold ids, runs and metadata of its threads. If all threads of a bucket expire, its keys expire too, all at one
-- moment: at the earliest with the last thread, at the latest SLACK after it. So a thread that is in use seldom moves it. If one
-- thread never expires, neither do they. Every script calls this last that changes which threads there are or when they expire,
-- or that may have made a key of the bucket anew.
local SLACK = 86400000
local function expire_bucket()
  local last, due = false, false -- when its last thread expires; whether something is to be done
  if call('PTTL', T) ~= -1 and call('ZCARD', THREADS) <= call('ZCARD', EXPIRY) then
    last = tonumber(call('ZRANGE', EXPIRY, -1, -1, 'WITHSCORES')[2])
  end
  local indexes = { THREADS, EXPIRY, RUNS, META }
  for _, index in ipairs(indexes) do
    local left = call('PTTL', index)
    if left >= 0 then
      due = due or not last or now + left < last or now + left > last + SLACK
    else
      due = due or (last and left == -1)
    end
  end
  if not due then return end
  for _, index in ipairs(indexes) do
    if last then call('PEXPIREAT', index, number(last + SLACK)) else call('PERSIST', index) end
  end
end
-- After a write: both keys get one moment of expiry, or none. `given`: TTL in ms of the saver (0 = none), or, behind an 'r', of the
-- run: it holds until a write without one, also for reads. `ttl`, `whose`: the settings. The last writer decides: one without a
-- TTL takes the expiry off, since a conversation in use must not end because another saver had a TTL. What came early, after a
-- deletion and before a root checkpoint, keeps the moment it has.
local function keep_for(given, ttl, whose)
  local of_run = tonumber(given:match('^r(%d+)$'))
  if whose == NEVER then
    never_expire()
  elseif whose == OWN then
    expire_at(now + ttl)
  elseif of_run then
    if whose ~= RUN or ttl ~= of_run then set(RUN, of_run) end
    expire_at(now + of_run)
  else
    if whose == RUN then call('HDEL', T, 'T') end
    if tonumber(given) > 0 then
      expire_at(now + given)
    elseif call('PTTL', T) >= 0 and (newest('') or call('EXISTS', TOMB) == 0) then
      never_expire()
    end
  end
end
local function touch(ttl) -- after a read: only when less than 90 % remain, so that most reads write nothing
  if ttl < 0 then return end
  local left = call('PTTL', T)
  if left < 0 then return end
  local own, whose = settings_of(call('HGET', T, 'T'))
  if own and own > 0 then ttl = own end
  if own and whose ~= NEVER and ttl > 0 and left < 0.9 * ttl then
    -- a read is not refused because its refresh is, as it is on a replica; the index first: it may say that the thread lives
    -- longer than it does, and never that it is gone
    local done = redis.pcall('ZADD', EXPIRY, number(now + ttl), thread)
    if type(done) == 'number' and redis.pcall('PEXPIREAT', T, number(now + ttl)) == 1 then
      redis.pcall('PEXPIREAT', I, number(now + ttl))
      expire_bucket()
    end
  end
end

-- An index evicted under a living hash is rebuilt, so it is never taken for an empty thread.
local function heal()
  local entries = {}
  local function enter(member)
    entries[#entries + 1] = 0
    entries[#entries + 1] = member
  end
  for _, field in ipairs(call('HKEYS', T)) do
    local kind = byte(field)
    if kind == 67 then
      enter(field)
      if byte(field, 2) ~= 0 then -- not of the root namespace
        local ns, id = split(field)
        enter('A' .. id .. '\0' .. ns)
      end
    elseif kind == 71 then
      enter(field)
    end
  end
  local left = #entries > 0 and call('PTTL', T) or -1
  if left >= 0 then call('PEXPIREAT', T, number(now + left)) end -- a right that is missing shows before anything is written
  in_batches('ZADD', I, entries)
  if left >= 0 then -- both keys: what is left is told by a clock that went on since now
    expire_at(now + left)
    expire_bucket()
  end
end
-- For writers: 'ok' with counts and settings, 'none', 'lost' (the hash was evicted under a living index), or the word for
-- what is damaged: 'counts' (S), 'settings' (T).
local function open()
  local got = call('HMGET', T, 'S', 'T')
  local indexed = call('ZCARD', I)
  if not got[1] and call('EXISTS', T) == 0 then
    return indexed > 0 and 'lost' or 'none', counts_of(false), settings_of(false)
  end
  local s = got[1] and counts_of(got[1])
  if not s then return 'counts' end
  local ttl, whose = settings_of(got[2])
  if not ttl then return 'settings' end
  if indexed == 0 and s.checkpoints > 0 then heal() end
  return 'ok', s, ttl, whose
end
-- For readers, who need neither counts nor settings and are not stopped by damage there: 'ok', 'none', 'lost'.
local function look()
  local indexed, there = call('ZCARD', I), call('EXISTS', T)
  if there == 0 then return indexed > 0 and 'lost' or 'none' end
  if indexed == 0 then heal() end
  return 'ok'
end
local function above(a, b) -- in the order of bytes; Lua's own comparison follows the locale of the server
  for k = 1, math.min(#a, #b) do
    local difference = byte(a, k) - byte(b, k)
    if difference ~= 0 then return difference > 0 end
  end
  return #a > #b
end

-- Pages and chunks that records refer to, each once: { digest, content, ... } twice. `record` begins with its stamp.
-- Those whose digests the reader says it has are left out, and so are the chunks of such a page.
local function collector(have_pages, have_chunks)
  local seen_pages, pages, seen, chunks = {}, {}, {}, {}
  local had = {}
  for at = 1, #(have_pages or '') - 15, 16 do
    local page = sub(have_pages, at, at + 15)
    seen_pages[page] = true
    had[#had + 1] = 'P' .. page
  end
  for at = 1, #(have_chunks or '') - 15, 16 do seen[sub(have_chunks, at, at + 15)] = true end
  local self = {}
  function self.add(record)
    local n_pages, n_chunks, at = references(record, STAMP + 1)
    for k = 0, n_pages - 1 do
      local page = sub(record, at + 16 * k, at + 16 * k + 15)
      if not seen_pages[page] then seen_pages[page] = true; pages[#pages + 1] = page end
    end
    at = at + 16 * n_pages
    for k = 0, n_chunks - 1 do
      local chunk = sub(record, at + 16 * k, at + 16 * k + 15)
      if not seen[chunk] then seen[chunk] = true; chunks[#chunks + 1] = chunk end
    end
  end
  function self.add_writes(blob) -- the bytes that the values of these writes take, serialized
    local bytes = 0
    if blob then
      walk(blob, function(at, size)
        if references(blob, at + 4 + STAMP) + u(blob, at + 4 + STAMP + 5, 2) > 0 then
          self.add(sub(blob, at + 4, at + 3 + size))
          bytes = bytes + u(blob, at + 4 + STAMP + 10, 5)
        end
      end)
    end
    return bytes
  end
  function self.result(without_chunks)
    local page_names, chunk_names = {}, {}
    if #pages > 0 then -- a new page mostly names chunks that pages before it named
      for _, content in pairs(hmget(T, had)) do
        for at = 1, #(content or '') - 15, 16 do seen[sub(content, at, at + 15)] = true end
      end
    end
    for k, page in ipairs(pages) do page_names[k] = 'P' .. page end
    local contents, out_pages = hmget(T, page_names), {}
    for k, page in ipairs(pages) do
      out_pages[2 * k - 1], out_pages[2 * k] = page, contents[k]
      for at = 1, #(contents[k] or '') - 15, 16 do
        local chunk = sub(contents[k], at, at + 15)
        if not seen[chunk] then seen[chunk] = true; chunks[#chunks + 1] = chunk end
      end
    end
    if without_chunks then return out_pages, {} end
    for k, chunk in ipairs(chunks) do chunk_names[k] = 'D' .. chunk end
    contents = hmget(T, chunk_names)
    local out = {}
    for k, chunk in ipairs(chunks) do out[2 * k - 1], out[2 * k] = chunk, contents[k] end
    return out_pages, out
  end
  return self
end

-- The writing side, shared by put and put_writes. References of the records in `incoming` that are neither there nor sent
-- (ARGV from `at`: count, then page digest and content; count, then chunk digest and content; staging in KEYS[8]) are
-- returned behind the word 'missing', and then nothing may be written; else the contents to write, and their bytes.
local function plain_size(content) -- of a packed chunk, codec.py
  return byte(content) == 0 and #content - 1 or u(content, 2, 4)
end
local function weigh(names, first, last) -- chunks and pages: stored bytes with their names, plain bytes of the chunks
  local stored, plain = 0, 0
  local contents = hmget(T, names, first, last)
  for k = first, last do
    local content = contents[k - first + 1]
    if content then
      stored = stored + #names[k] + #content
      if byte(names[k]) == 68 then plain = plain + plain_size(content) end
    end
  end
  return stored, plain
end
local function tally(s, record, at, sign) -- the values of a record, whose header begins at `at`, come or go
  s.logical = s.logical + sign * u(record, at + 10, 5)
  s.referred = s.referred + sign * u(record, at + 15, 5)
end
local function received(incoming, at)
  local pages, chunks, missing, fields, bytes, checked, unique = {}, {}, { 'missing' }, {}, 0, {}, 0
  local n = tonumber(ARGV[at])
  for k = 1, n do pages[ARGV[at + 2 * k - 1]] = ARGV[at + 2 * k] end
  at = at + 1 + 2 * n
  n = tonumber(ARGV[at])
  for k = 1, n do chunks[ARGV[at + 2 * k - 1]] = ARGV[at + 2 * k] end
  local count = 0
  local function need(kind, name, sent)
    local field = kind .. name
    if checked[field] then return end
    checked[field] = true
    local content = sent[name] or (KEYS[8] and call('HGET', KEYS[8], field))
    if call('HEXISTS', T, field) == 1 then
      -- what was sent again replaces what is there, which may be damaged
      if not content then return end
      local there = call('HGET', T, field)
      if there == content then return end
      bytes = bytes - 17 - #there
      if kind == 'D' then count, unique = count - 1, unique - plain_size(content) end
    elseif not content then
      missing[#missing + 1] = field
      return
    end
    fields[#fields + 1] = field
    fields[#fields + 1] = content
    bytes = bytes + 17 + #content
    if kind == 'D' then count, unique = count + 1, unique + plain_size(content) end
    return content
  end
  for _, record in ipairs(incoming) do -- without stamp
    local n_pages, n_chunks, first = references(record, 1)
    for k = 0, n_pages + n_chunks - 1 do
      local name = sub(record, first + 16 * k, first + 16 * k + 15)
      if k >= n_pages then
        need('D', name, chunks)
      else -- a page that is there has all its chunks there: they come and go together
        local page = need('P', name, pages)
        if page then
          for p = 1, #page - 15, 16 do need('D', sub(page, p, p + 15), chunks) end
        end
      end
    end
  end
  return missing, fields, bytes, count, unique
end

-- Before anything is written: a key of the wrong type fails here.
local function probe()
  call('ZCARD', THREADS); call('ZCARD', EXPIRY); call('ZCARD', RUNS); call('ZCARD', META)
end
-- A script that finds all done says so only after writing something: WAIT counts from the last write of its own connection, and
-- this one may be new. HDEL first, since a full server lets a script go on that has begun to write.
local function write_again(field, content)
  call('HDEL', T, '')
  call('HSET', T, field, content)
end
-- The tombstone: the checkpoints that were deleted with the thread, and what was refused since; all scores 0, but for the
-- member DELETED, whose score says when it was deleted (ms).
local DELETED = 'deleted'
local function gone(field) -- whether a checkpoint was deleted, and is not there again
  return call('HEXISTS', T, field) == 0 and call('ZSCORE', TOMB, field) ~= false
end
local function unstage() -- what was staged is not needed any more
  if KEYS[8] then call('UNLINK', KEYS[8]) end
  if KEYS[9] then call('UNLINK', KEYS[9]) end
end
local function refused(reply) -- nothing was written
  unstage()
  return reply
end
local function refused_as_deleted(field) -- what builds on that checkpoint is refused too; ZREM first, as in write_again()
  call('ZREM', TOMB, field)
  call('ZADD', TOMB, 0, field)
  return refused({ 'deleted', number(call('ZSCORE', TOMB, DELETED) or now) })
end

-- Bucket indexes after a write, and a little tidying: up to three threads that expired are forgotten.
local function forget(id, limit) -- true when nothing of it is left in the bucket's indexes
  local left = 0
  for _, index in ipairs({ RUNS, META }) do
    local reverse = call('ZRANGEBYLEX', index, '[T' .. id .. '\0', '[T' .. id .. '\0\255', 'LIMIT', 0, limit)
    local gone = {}
    for _, member in ipairs(reverse) do
      gone[#gone + 1] = member
      gone[#gone + 1] = (index == RUNS and 'R' or 'V') .. sub(member, #id + 3) .. '\0' .. id
    end
    in_batches('ZREM', index, gone)
    if #reverse >= limit then left = left + 1 end
  end
  return left == 0
end
local function file_under(first, last) -- metadata in ARGV: key and value each ('' = none: it is removed)
  for k = first, last, 2 do -- one value of each key: a new one moves the thread
    local reverse = 'T' .. thread .. '\0' .. ARGV[k] .. '\0'
    local entry = reverse .. ARGV[k + 1]
    local there = false
    for _, was in ipairs(call('ZRANGEBYLEX', META, '[' .. reverse, '[' .. reverse .. '\255')) do
      if was == entry then
        there = true
      else
        call('ZREM', META, was, 'V' .. sub(was, #thread + 3) .. '\0' .. thread)
      end
    end
    if not there and ARGV[k + 1] ~= '' then call('ZADD', META, 0, entry, 0, 'V' .. ARGV[k] .. '\0' .. ARGV[k + 1] .. '\0' .. thread) end
  end
end
local function drop_thread()
  call('UNLINK', T, I)
  call('ZREM', THREADS, thread)
  call('ZREM', EXPIRY, thread)
  repeat until forget(thread, 1000)
  expire_bucket()
end
local function tidy_bucket(most) -- forgets so many threads that expired; true if there may be more
  local overdue = call('ZRANGEBYSCORE', EXPIRY, '-inf', '(' .. number(now), 'LIMIT', 0, most)
  local more = #overdue == most
  for _, id in ipairs(overdue) do
    if id ~= thread then
      if forget(id, 100) then
        call('ZREM', EXPIRY, id); call('ZREM', THREADS, id)
      else
        more = true
      end
    end
  end
  return more
end
local function bookkeeping()
  call('ZADD', THREADS, number(now), thread)
  tidy_bucket(3)
  expire_bucket()
end
