-- The tombstone of a deleted thread: what its index held.
-- include: bytes clock staging
-- The tombstone: the checkpoints that were deleted with the thread, and what was refused since; all scores 0, but for the
-- member DELETED, whose score says when it was deleted (ms).
local DELETED = 'deleted'
local function gone(field) -- whether a checkpoint was deleted, and is not there again
  return call('HEXISTS', T, field) == 0 and call('ZSCORE', TOMB, field) ~= false
end
local function refused_as_deleted(field) -- what builds on that checkpoint is refused too; ZREM first, as in rewrite()
  call('ZREM', TOMB, field)
  call('ZADD', TOMB, 0, field)
  return refused({ 'deleted', number(call('ZSCORE', TOMB, DELETED) or now) })
end
