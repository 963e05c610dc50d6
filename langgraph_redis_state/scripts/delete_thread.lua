-- Deletes a thread: its two keys and its entries in the bucket's indexes. Its index becomes the tombstone: the checkpoints that
-- were deleted, so that late writes of a run that was under way do not bring it back (gone() in lib/tombstone.lua).
-- ARGV: 1 thread, 2 tombstone in ms (0 = none)
-- Reply: ok, 1 if there was a thread
-- Frees memory first: it works on a full server. A rename takes the same time for every length of the thread. No damage stops
-- it. Repeated, it finds nothing to do and leaves the tombstone.
-- include: bytes batches record clock buckets tombstone
local lifetime = tonumber(ARGV[2])
check_key_types()
local there = call('EXISTS', T) + call('EXISTS', I)
local keep = there > 0 and lifetime > 0
local named = {} -- checkpoints that no index names
local function name(field)
  named[#named + 1] = 0
  named[#named + 1] = field
end
local function name_unindexed()
  -- With root checkpoints, what is on its way builds on one of them. Without, the index may have been evicted, and what is here
  -- overtook the first of the run: then its writes and its subgraphs are all that names it.
  local roots = redis.pcall('ZLEXCOUNT', I, '[C\0', '[C\0\255')
  if type(roots) == 'number' and roots > 0 then return end
  for _, field in ipairs(call('HKEYS', T)) do
    local kind = byte(field)
    if kind == 67 or kind == 87 then name('C' .. field:match('^.([^%z]*%z[^%z]*)')) end
    if kind == 67 and byte(field, 2) ~= 0 then
      local record = call('HGET', T, field)
      local pages, chunks, at = references(record, STAMP + 1)
      local _, behind = read_id(record, at + 16 * (pages + chunks))
      local root = read_id(record, behind)
      if root ~= '' then name('C\0' .. root) end
    end
  end
end
if keep then pcall(name_unindexed) end

call('UNLINK', T)
if keep then
  if type(redis.pcall('ZCARD', I)) == 'table' then call('UNLINK', I) end -- of the wrong type
  if type(redis.pcall('ZCARD', TOMB)) == 'table' then call('UNLINK', TOMB) end
  in_batches('ZADD', I, named)
  in_batches('ZREM', I, call('ZRANGEBYLEX', I, '[G', '[G\255'))
  local left = math.max(lifetime, call('PTTL', TOMB)) -- of an earlier deletion: the smaller goes into the larger
  local index, key = I, TOMB
  if call('ZCARD', I) > call('ZCARD', TOMB) then index, key = TOMB, I end
  local moved = {}
  for k, field in ipairs(call('ZRANGE', index, 0, -1)) do moved[2 * k - 1], moved[2 * k] = 0, field end
  in_batches('ZADD', key, moved)
  call('UNLINK', index)
  if key == I then call('RENAME', I, TOMB) end
  call('ZADD', TOMB, number(now), DELETED)
  call('PEXPIRE', TOMB, number(left))
end
drop_thread()
if there == 0 then -- writes something, as rewrite() does
  call('ZADD', THREADS, 0, thread); call('ZREM', THREADS, thread)
end
return { 'ok', there > 0 and 1 or 0 }
