-- Says how a thread stands at one moment, for verification. Writes nothing: it neither heals an index nor refreshes a TTL.
-- ARGV: 1 thread, 2 number of members of the bucket's runs that may be its, then these, then members of the bucket's m
-- Reply: ok, numbers of the keys that are of the wrong type, field S, field T, 1 if the hash is there, members of the index,
--        ms that the hash has left, that the index has left (as PTTL says it), last activity, expiry (both nil where the bucket
--        has none), now in ms, ms that the first key of the bucket to expire has left (-1: none of them expires), members of runs, members of m: its reverse entries, those they stand for, and those asked for;
--        of all these the ones that are there
-- include: bytes arguments clock
local asked_runs, last_run, asked_meta = list(2, 1)
local wrong, is_wrong = {}, {}
local function sound(k, reply)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not reply.err:find('WRONGTYPE', 1, true) then error(reply.err) end
  wrong[#wrong + 1], is_wrong[k] = k, true
  return false
end
local counts = sound(1, redis.pcall('HGET', T, 'S'))
local settings = not is_wrong[1] and call('HGET', T, 'T')
local indexed = sound(2, redis.pcall('ZCARD', I)) or 0
local active = sound(3, redis.pcall('ZSCORE', THREADS, thread))
local expiry = sound(4, redis.pcall('ZSCORE', EXPIRY, thread))
sound(5, redis.pcall('ZCARD', RUNS))
sound(6, redis.pcall('ZCARD', META))
sound(7, redis.pcall('ZCARD', TOMB))

local function entries(k, index, letter, from, to)
  local there, asked = {}, {}
  if is_wrong[k] then return there end
  for _, member in ipairs(call('ZRANGEBYLEX', index, '[T' .. thread .. '\0', '[T' .. thread .. '\0\255')) do
    there[#there + 1] = member
    asked[#asked + 1] = letter .. sub(member, #thread + 3) .. '\0' .. thread
  end
  for a = from, to do asked[#asked + 1] = ARGV[a] end
  for _, member in ipairs(asked) do
    if call('ZSCORE', index, member) then there[#there + 1] = member end
  end
  return there
end
local first = -1
for _, index in ipairs({ THREADS, EXPIRY, RUNS, META }) do
  local left = call('PTTL', index)
  if left >= 0 and (first < 0 or left < first) then first = left end
end
return {
  'ok', wrong, counts, settings, call('EXISTS', T), indexed, call('PTTL', T), call('PTTL', I), active, expiry, number(now), first,
  entries(5, RUNS, 'R', asked_runs, last_run), entries(6, META, 'V', asked_meta, #ARGV),
}
