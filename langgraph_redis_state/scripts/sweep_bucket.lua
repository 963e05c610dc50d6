-- Forgets threads of a bucket that expired: drops what the bucket's indexes still say of them.
-- KEYS[1], KEYS[2] and KEYS[7] are those of the thread '', which the script leaves alone.
-- ARGV: 1 '', 2 most threads.  Reply: ok, 1 if there may be more
-- Idempotent. What it does to each thread is bounded too.
-- include: ttl buckets
local most = tonumber(ARGV[2])
local more = tidy_bucket(most)
expire_bucket()
return { 'ok', more and 1 or 0 }
