-- Fills the staging of one copy or one large upload. Nobody sees it; it expires by itself if the client dies.
-- KEYS[8] hash, KEYS[9] sorted set.  ARGV: 1 thread, 2 lifetime in ms, 3 number of fields, then field and value each,
-- then members of the index.  Reply: ok
-- Field S of the staging says how many fields came to it: staging that was evicted, and begun again, is not taken for whole.
-- Idempotent.
-- include: bytes arguments
local lifetime = ARGV[2]
local fields, last_field, members = list(3, 2)
local came = 0
for k = fields, last_field, 2 do came = came + call('HSET', KEYS[8], ARGV[k], ARGV[k + 1]) end
if came > 0 then call('HSET', KEYS[8], 'S', number(came + (call('HGET', KEYS[8], 'S') or 0))) end
for k = members, #ARGV do call('ZADD', KEYS[9], 0, ARGV[k]) end
call('PEXPIRE', KEYS[8], lifetime)
call('PEXPIRE', KEYS[9], lifetime)
return { 'ok' }
