-- Deletes a thread: its two keys and its entries in the bucket's indexes. Leaves a tombstone, so that late writes of a run
-- that was under way do not bring it back.
-- ARGV: 1 thread, 2 tombstone in ms (0 = none)
-- Reply: ok, 1 if there was a thread
-- Frees memory first: it works on a full server. Repeated, it finds nothing to do and leaves the tombstone.
probe()
local there = call('EXISTS', T) + call('EXISTS', I)
drop_thread()
if there == 0 then -- writes something, as write_again() does
  call('ZADD', THREADS, 0, thread); call('ZREM', THREADS, thread)
end
if there > 0 and tonumber(ARGV[2]) > 0 then call('SET', TOMB, number(now_us), 'PX', ARGV[2]) end
return { 'ok', there > 0 and 1 or 0 }
