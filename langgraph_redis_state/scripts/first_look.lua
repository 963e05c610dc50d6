-- A saver's first look at a prefix: its layout number, and whether the user may run what scripts need. Without libraries.
-- KEYS[1] the layout number, KEYS[2] a key of its slot that never exists: every command is tried on it, in a form that changes
-- nothing. ARGV: 1 the layout number to write if there is none ('' = leave it), 2 how many of the commands must be allowed,
--       else the layout number is neither read nor written; then commands, these first
-- Reply: ok, the layout number or nil, then of each command that is not allowed its name and what the server says
-- Idempotent.
local key, absent, layout, needed = KEYS[1], KEYS[2], ARGV[1], 2 + ARGV[2]
local FORMS = {
  HSET = { 'f', 'v', 'f' }, HDEL = { 'f' }, HGET = { 'f' }, HMGET = { 'f' }, HEXISTS = { 'f' }, PEXPIRE = { 'x' },
  PEXPIREAT = { 'x' }, RENAME = { absent }, SET = { 'v', 'NX', 'XX' }, ZADD = { 'x', 'm' }, ZLEXCOUNT = { '-', '+' }, ZRANGE = { '0', '0' },
  ZRANGEBYLEX = { '-', '+' }, ZRANGEBYSCORE = { '0', '0' }, ZREM = { 'm' }, ZREVRANGEBYLEX = { '+', '-' }, ZSCORE = { 'm' },
}
local SIGNS = { 'NOPERM', 'ermission', "can't run", "can't access", 'ACL failure', 'nknown', 'not allowed', 'not support', 'disabled' }
local reply, allowed = { 'ok', false }, true
for k = 3, #ARGV do
  local command = ARGV[k]
  local answer = command == 'TIME' and redis.pcall('TIME') or redis.pcall(command, absent, unpack(FORMS[command] or {}))
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
reply[2] = redis.call('GET', key)
if not reply[2] and layout ~= '' then
  redis.call('SET', key, layout)
  reply[2] = layout
end
return reply
