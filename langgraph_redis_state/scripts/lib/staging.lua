-- The staging keys of a call (KEYS[8], KEYS[9]).
local function drop_staging() -- rare: what was staged is not needed any more
  if KEYS[8] then call('UNLINK', KEYS[8]) end
  if KEYS[9] then call('UNLINK', KEYS[9]) end
end
local function refused(reply) -- rare: nothing was written
  drop_staging()
  return reply
end
