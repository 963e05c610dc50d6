-- A saver's first look at a prefix: its layout number, and whether the user may run what scripts need. Without the prelude.
-- KEYS[1] the layout number, KEYS[2] a key of its slot that never exists: every command is tried on it, in a form that changes
-- nothing. ARGV: 1 the layout number to write if there is none ('' = leave it), 2 how many of the commands must be allowed,
--       else the layout number is neither read nor written; then commands, these first
-- Reply: ok, the layout number or nil, then of each command that is not allowed its name and what the server says
-- Idempotent.
local FORMS = {
  HSET = { 'f', 'v', 'f' }, HDEL = { 'f' }, HGET = { 'f' }, HMGET = { 'f' }, HEXISTS = { 'f' }, PEXPIRE = { 'x' },
  PEXPIREAT = { 'x' }, RENAME = { KEYS[2] }, SET = { 'v', 'NX', 'XX' }, ZADD = { 'x', 'm' }, ZLEXCOUNT = { '-', '+' }, ZRANGE = { '0', '0' },
  ZRANGEBYLEX = { '-', '+' }, ZRANGEBYSCORE = { '0', '0' }, ZREM = { 'm' }, ZREVRANGEBYLEX = { '+', '-' }, ZSCORE = { 'm' },
}
local SIGNS = { 'NOPERM', 'ermission', "can't run", "can't access", 'ACL failure', 'nknown', 'not allowed', 'not support', 'disabled' }
local reply, needed, allowed = { 'ok', false }, 2 + ARGV[2], true
for k = 3, #ARGV do
  local command = ARGV[k]
  local answer = command == 'TIME' and redis.pcall('TIME') or redis.pcall(command, KEYS[2], unpack(FORMS[command] or {}))
  local refusal = type(answer) == 'table' and answer.err
  for _, sign in ipairs(SIGNS) do
    if refusal and refusal:find(sign, 1, true) then
      reply[#reply + 1] = command
      reply[#reply + 1] = refusal
      if k <= needed then allowed = false end
      break
    end
  end
end
if not allowed then return reply end
reply[2] = redis.call('GET', KEYS[1])
if not reply[2] and ARGV[1] ~= '' then
  redis.call('SET', KEYS[1], ARGV[1])
  reply[2] = ARGV[1]
end
return reply
