-- Fills the staging of one copy or one large upload. Nobody sees it; it expires by itself if the client dies.
-- KEYS[8] hash, KEYS[9] sorted set.  ARGV: 1 thread, 2 lifetime in ms, 3 number of fields, then field and value each,
-- then members of the index.  Reply: ok
-- Field S of the staging says how many fields came to it: staging that was evicted, and begun again, is not taken for whole.
-- Idempotent.
-- include: bytes
local n = tonumber(ARGV[3])
local came = 0
for k = 1, n do came = came + call('HSET', KEYS[8], ARGV[2 + 2 * k], ARGV[3 + 2 * k]) end
if came > 0 then call('HSET', KEYS[8], 'S', number(came + (call('HGET', KEYS[8], 'S') or 0))) end
for k = 4 + 2 * n, #ARGV do call('ZADD', KEYS[9], 0, ARGV[k]) end
call('PEXPIRE', KEYS[8], ARGV[2])
call('PEXPIRE', KEYS[9], ARGV[2])
return { 'ok' }
