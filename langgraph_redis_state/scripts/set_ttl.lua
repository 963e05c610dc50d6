-- Sets how long a thread lives from now on, for itself, whatever the saver that writes to it says.
-- ARGV: 1 thread, 2 'own' | 'persist' | 'default' | 'apply': the saver's TTL, if the thread has no settings of its own,
--       3 TTL in ms: own: that of the thread; default, apply: that of the saver
-- Reply: ok, 1 if it did so, 0 if settings stand in the way | none | lost | counts | settings
-- Both keys get one moment of expiry; nothing else changes.
-- include: counts clock ttl thread
local how, given = ARGV[2], ARGV[3]
local state, s, _, whose = load_thread()
if state == 'settings' and how ~= 'apply' then s = parse_counts(call('HGET', T, 'S')); state = 'ok' end -- this is what mends them
if not s or state == 'lost' or state == 'none' then return { state } end
ensure_index(s)
local ttl = tonumber(given)
rewrite('S', format_counts(s))
if how == 'apply' then
  if whose == '' then apply_ttl(given, 0, whose); expire_bucket() end
  return { 'ok', whose == '' and 1 or 0 }
end
if how == 'own' then
  write_settings(OWN, ttl)
elseif how == 'persist' then
  write_settings(NEVER, 0)
else
  call('HDEL', T, 'T')
end
if ttl > 0 then expire_at(now + ttl) else never_expire() end
expire_bucket()
return { 'ok', 1 }
