-- How a script begins: is the thread there, is its index, what are its counts and settings?
-- include: bytes batches record counts clock ttl
-- An index evicted under a living hash is rebuilt, so it is never taken for an empty thread.
local function rebuild_index() -- rare
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
        local ns, id = split_field(field)
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
-- what is damaged: 'counts' (S), 'settings' (T). Behind them what up to three more fields hold.
local function load_thread(...)
  local got = call('HMGET', T, 'S', 'T', ...)
  if not got[1] and call('EXISTS', T) == 0 then
    return call('ZCARD', I) > 0 and 'lost' or 'none', parse_counts(false), 0, ''
  end
  local s = got[1] and parse_counts(got[1])
  if not s then return 'counts' end
  local ttl, whose = 0, ''
  if got[2] then
    ttl, whose = parse_settings(got[2])
    if not ttl then return 'settings' end
  end
  return 'ok', s, ttl, whose, got[3], got[4], got[5]
end
local function ensure_index(s) -- rare: before a writer looks into the index
  if s.checkpoints > 0 and call('ZCARD', I) == 0 then rebuild_index() end
end
-- For readers, who need neither counts nor settings and are not stopped by damage there: 'ok', 'none', 'lost'.
-- `looks`: to write nothing: 'unindexed' where an index would have to be rebuilt.
local function check_thread(looks)
  local indexed, there = call('ZCARD', I), call('EXISTS', T)
  if there == 0 then return indexed > 0 and 'lost' or 'none' end
  if indexed == 0 and looks then return 'unindexed' end
  if indexed == 0 then rebuild_index() end
  return 'ok'
end
-- A script that finds all done says so only after writing something: WAIT counts from the last write of its own connection, and
-- this one may be new. HDEL first, since a full server lets a script go on that has begun to write.
local function rewrite(field, content) -- rare
  call('HDEL', T, '')
  call('HSET', T, field, content)
end
