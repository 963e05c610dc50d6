-- Sets or removes a name for a checkpoint. A tagged checkpoint survives retention and prune.
-- ARGV: 1 thread, 2 field G<name>, 3 its content ('' = remove): format, key id, checksum (16), field of the checkpoint,
--       4 TTL as in keep_for()
-- Reply: ok, 1 if something changed | none (no such thread or checkpoint) | lost | counts | settings
-- Idempotent. Setting a name is a write, for the TTL; removing one is not.
local state, s, ttl, whose = open()
if not s or state == 'lost' then return { state } end
local field, content = ARGV[2], ARGV[3]
if state == 'none' or (content ~= '' and call('HEXISTS', T, sub(content, 19)) == 0) then return { 'none' } end
local function used() -- for the TTL
  if content ~= '' then keep_for(ARGV[4], ttl, whose); expire_bucket() end
end
local old = call('HGET', T, field)
if (old or '') == content then
  write_again('S', counts_text(s))
  used()
  return { 'ok', 0 }
end
s.rev = s.rev + 1
s.stored = s.stored + (content == '' and 0 or #field + #content) - (old and #field + #old or 0)
if content == '' then
  call('HDEL', T, field)
  call('ZREM', I, field)
  call('HSET', T, 'S', counts_text(s))
else
  call('HSET', T, field, content, 'S', counts_text(s))
  call('ZADD', I, 0, field)
end
used()
return { 'ok', 1 }
