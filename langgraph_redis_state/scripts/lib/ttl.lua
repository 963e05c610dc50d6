-- When a thread expires: its own settings (field T), and the moment that both keys get.
-- include: bytes counts clock order
-- T: '1 whose ttl check': whose = 0: the TTL in ms is the thread's own; 1: it never expires; 2: the TTL is that of the run that
-- wrote last. Not there: that of the saver.
local OWN, NEVER, RUN = '0', '1', '2'
local function parse_settings(raw) -- rare: TTL (0 = none), whose it is; nil if the field is damaged
  if not raw then return 0, '' end
  local line, whose, ttl = raw:match('^(1 ([012]) (%d+)) %x+$')
  if not line or seal_line(line) ~= raw then return nil end
  return tonumber(ttl), whose
end
local function write_settings(whose, ttl) call('HSET', T, 'T', seal_line('1 ' .. whose .. ' ' .. number(ttl))) end -- rare
local function expire_at(moment) -- rare
  call('PEXPIREAT', T, number(moment))
  call('PEXPIREAT', I, number(moment))
  call('ZADD', EXPIRY, number(moment), thread)
end
local function never_expire() -- rare
  call('PERSIST', T); call('PERSIST', I); call('ZREM', EXPIRY, thread)
end
-- The bucket's keys hold ids, runs and metadata of its threads. If all threads of a bucket expire, its keys expire too, all at one
-- moment: at the earliest with the last thread, at the latest SLACK after it. So a thread that is in use seldom moves it. If one
-- thread never expires, neither do they. Every script calls this last that changes which threads there are or when they expire,
-- or that may have made a key of the bucket anew.
local SLACK = 86400000
local function expire_bucket() -- rare
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
-- After a write: both keys get one moment of expiry, or none. `given`: TTL in ms of the saver (0 = none, -1 = as it is), or, behind an 'r', of the
-- run: it holds until a write without one, also for reads. `ttl`, `whose`: the settings. The last writer decides: one without a
-- TTL takes the expiry off, since a conversation in use must not end because another saver had a TTL. What came early, after a
-- deletion and before a root checkpoint, keeps the moment it has.
local function apply_ttl(given, ttl, whose) -- rare
  local of_run = tonumber(given:match('^r(%d+)$'))
  if whose == NEVER then
    never_expire()
  elseif whose == OWN then
    expire_at(now + ttl)
  elseif of_run then
    if whose ~= RUN or ttl ~= of_run then write_settings(RUN, of_run) end
    expire_at(now + of_run)
  else
    if whose == RUN then call('HDEL', T, 'T') end
    if tonumber(given) > 0 then
      expire_at(now + given)
    elseif tonumber(given) == 0 and call('PTTL', T) >= 0 and (newest('') or call('EXISTS', TOMB) == 0) then
      never_expire()
    end
  end
  return true
end
local function refresh_ttl(ttl) -- rare: after a read, if ttl >= 0: only when less than 90 % remain, so that most reads write nothing
  local left = call('PTTL', T)
  if left < 0 then return end
  local own, whose = parse_settings(call('HGET', T, 'T'))
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
