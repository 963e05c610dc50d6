-- Names the vectors of one bucket of the store that are most similar to another.
-- ARGV: 1 vector, 2 most names, 3 a filter of their attributes ('' = none), 4 up to so many vectors all are compared; of more, the graph is
--       searched, which looks at that many at most and may miss some
-- Reply: ok, names and similarities in turn, how many vectors there are | dims, how many they have
-- Writes nothing.
-- include: store
local most = ARGV[4]
local total = redis.call(VCARD, VECTORS)
if total == 0 then return { 'ok', {}, 0 } end
local dims = redis.call(VDIM, VECTORS)
if dims * 4 ~= #ARGV[1] then return { 'dims', dims } end
local command = { VSIM, VECTORS, 'FP32', ARGV[1], 'WITHSCORES', 'COUNT', ARGV[2] }
local function add(...)
  for _, each in ipairs({ ... }) do command[#command + 1] = each end
end
if ARGV[3] ~= '' then add('FILTER', ARGV[3], 'FILTER-EF', most) end
if total <= tonumber(most) then add('TRUTH') end
return { 'ok', redis.call(unpack(command)), total }
