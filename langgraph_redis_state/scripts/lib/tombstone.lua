-- The tombstone of a deleted thread: what its index held.
-- include: bytes clock staging
-- The tombstone: the checkpoints that were deleted with the thread, and what was refused since; all scores 0, but for the
-- member DELETED, whose score says when it was deleted (ms).
local DELETED = 'deleted'
-- If one of the fields was deleted, and is not there again: the reply, and the tombstone names the first of them too. `first`, `last`:
-- where the further ones stand in ARGV. ZREM first, as in rewrite().
local function refused_as_deleted(field, first, last) -- rare
  local late = false
  for k = first - 1, last do
    local name = k < first and field or ARGV[k]
    late = late or (call('HEXISTS', T, name) == 0 and call('ZSCORE', TOMB, name) ~= false)
  end
  if not late then return nil end
  call('ZREM', TOMB, field)
  call('ZADD', TOMB, 0, field)
  return refused({ 'deleted', number(call('ZSCORE', TOMB, DELETED) or now) })
end
