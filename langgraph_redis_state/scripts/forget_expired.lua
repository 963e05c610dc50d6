-- Forgets a thread that expired: drops what the bucket's indexes still say of it. A thread that is there is left alone.
-- ARGV: 1 thread.  Reply: ok, 1 if it was gone, 0 if it is there, -1 if its hash was evicted under a living index
-- include: buckets
if call('EXISTS', T) == 1 then return { 'ok', 0 } end
if call('EXISTS', I) == 1 then return { 'ok', -1 } end
drop_thread()
return { 'ok', 1 }
