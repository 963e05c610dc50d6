-- Sets or removes a name for a checkpoint. A tagged checkpoint survives retention and prune.
-- ARGV: 1 thread, 2 field G<name>, 3 its content ('' = remove): format, key id, checksum (16), field of the checkpoint,
--       4 TTL as in apply_ttl()
-- Reply: ok, 1 if something changed | none (no such thread or checkpoint) | lost | counts | settings
-- Idempotent. Setting a name is a write, for the TTL; removing one is not.
-- include: counts ttl thread
local field, content, given = ARGV[2], ARGV[3], ARGV[4]
local state, s, ttl, whose = load_thread()
if not s or state == 'lost' then return { state } end
ensure_index(s)
if state == 'none' or (content ~= '' and call('HEXISTS', T, sub(content, 19)) == 0) then return { 'none' } end
local function used() -- for the TTL
  if content ~= '' then apply_ttl(given, ttl, whose); expire_bucket() end
end
local old = call('HGET', T, field)
if (old or '') == content then
  rewrite('S', format_counts(s))
  used()
  return { 'ok', 0 }
end
s.changes = s.changes + 1
s.stored = s.stored + (content == '' and 0 or #field + #content) - (old and #field + #old or 0)
if content == '' then
  call('HDEL', T, field)
  call('ZREM', I, field)
  call('HSET', T, 'S', format_counts(s))
else
  call('HSET', T, field, content, 'S', format_counts(s))
  call('ZADD', I, 0, field)
end
used()
return { 'ok', 1 }
