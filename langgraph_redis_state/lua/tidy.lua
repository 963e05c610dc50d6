-- Forgets a thread that expired: drops what the bucket's indexes still say of it. A living thread is left alone.
-- ARGV: 1 thread.  Reply: ok, 1 if it was gone
if call('EXISTS', T) + call('EXISTS', I) > 0 then return { 'ok', 0 } end
drop_thread()
return { 'ok', 1 }
