-- Copies what stays of a thread to the staging of a large removal. remove.lua makes the thread of it. Only names are sent.
-- KEYS[8] staged hash; KEYS[9], its index, is filled by stage.lua.
-- ARGV: 1 thread, 2 revision on which was chosen what stays, 3 lifetime in ms, then fields
-- Reply: ok, how many of the fields it copied, in order: it ends after COPIED bytes | stale (the thread changed since; the
--        staging is gone)
-- Field S of the staging says how many fields came to it: staging that was evicted, and begun again, is not taken for whole.
-- Idempotent. Cut in the middle: it is not, a script is atomic. A client that dies between two of them leaves the thread as it
-- was, and staging that expires. Nobody else sees staging.
-- include: bytes counts staging
local COPIED, TOGETHER = 524288, 10
local s = parse_counts(call('HGET', T, 'S'))
if not s or ARGV[2] ~= revision(s) then return refused({ 'stale' }) end
local at, bytes, came = 4, 0, tonumber(call('HGET', KEYS[8], 'S') or 0)
while at <= #ARGV and bytes < COPIED do
  local last, copied = math.min(at + TOGETHER - 1, #ARGV), {}
  for k, content in ipairs(call('HMGET', T, unpack(ARGV, at, last))) do
    if content then
      copied[#copied + 1] = ARGV[at + k - 1]
      copied[#copied + 1] = content
      bytes = bytes + #content
    end
  end
  if #copied > 0 then came = came + call('HSET', KEYS[8], unpack(copied)) end
  at = last + 1
end
call('HSET', KEYS[8], 'S', number(came))
call('PEXPIRE', KEYS[8], ARGV[3])
return { 'ok', at - 4 }
