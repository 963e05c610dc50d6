-- Stands before every verb. All scripts take the keys of one thread, in this order, and ARGV[1] is the thread id:
--   KEYS[1] t  hash        the thread              KEYS[5] runs     sorted set  runs of the bucket
--   KEYS[2] i  sorted set  its index               KEYS[6] m        sorted set  metadata of the bucket
--   KEYS[3] threads  sorted set  last activity     KEYS[7] x        sorted set  tombstone
--   KEYS[4] expiry   sorted set  when they expire  KEYS[8..9]       staging, where a verb uses it
-- Replies are arrays whose first element is a word: 'ok', or what was in the way. The last of ARGV is the call's token, which no
-- verb sees and which is put behind its reply (effects.py): so the client knows whose answer it got.
-- Only plain string functions: no cmsgpack, no struct. unpack() takes at most some 8,000 values, hence BATCH.
local T, I, THREADS, EXPIRY, RUNS, META, TOMB = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local token = table.remove(ARGV)
local thread = ARGV[1]
local function answered(reply) reply[#reply + 1] = token; return reply end -- by verbs that stand in no function of their own
local call, byte, sub, char, floor = redis.call, string.byte, string.sub, string.char, math.floor
