-- Removes checkpoints with their pending writes, tags, and the chunks and pages that nothing else refers to. What goes and what
-- it counts for was worked out by the client from verified headers (removal.py) on the revision it names, so nothing
-- else is looked at. Either what goes is taken out, or both keys are made anew from what stays, whichever is less: to leave
-- ten checkpoints of thousands is as short as to take ten away. Where both are much, what stays is in staging already
-- (keep.lua, stage.lua), and takes the place of both keys by one rename each.
-- KEYS[8] staged hash, KEYS[9] staged index: with 'staged', or where staging was begun and given up; what is left of it goes.
-- ARGV: 1 thread, 2 that revision, 3 'drop' what is listed | 'keep' it, with T and O, and nothing else | 'staged': keep what is
--       in staging likewise; 4 to 10 by how much fewer: checkpoints, writes, chunks, stored, logical, unique, referred (see
--       S); then six lists, each with its length before it: fields (staged: one item, how many); members of the index
--       (likewise); run ids that the thread has no more; fields to write, each with its content (pending writes, and delta
--       histories with parts of them that are not there yet); chunks and pages that go
--       and are not in those numbers yet, at most a few hundred; metadata as in file_under()
-- Reply: ok | stale (the thread changed since: choose again) | gone (the staging is not whole: evicted or expired; nothing was
--        done) | none | counts | settings
-- Repeated after its reply was lost it is stale, and there is nothing left to choose. Cut in the middle: it is not, a script is
-- atomic; others see the thread before or after.
-- Reads everything before it writes anything. Frees memory first and writes after: it works on a full server, which lets a
-- script end that has begun to write.
local state, s = open()
if not s then return refused({ state }) end
if state ~= 'ok' then return refused({ 'none' }) end
if ARGV[2] ~= revision(s) then return refused({ 'stale' }) end
local left = call('PTTL', T)
probe()
for k, name in ipairs({ 'checkpoints', 'writes', 'chunks', 'stored', 'logical', 'unique', 'referred' }) do
  s[name] = s[name] - ARGV[3 + k]
end

local at = 11
local function list(width)
  local first = at + 1
  at = first + width * ARGV[at]
  return first, at - 1
end
local fields, last_field = list(1)
local members, last_member = list(1)
local runs, last_run = list(1)
local replaced, last_replaced = list(2)
local stored, plain = weigh(ARGV, list(1))
local filed, last_filed = list(2)
s.stored, s.unique = s.stored - stored, s.unique - plain
local forgotten = {}
for k = runs, last_run do
  forgotten[#forgotten + 1] = 'R' .. ARGV[k] .. '\0' .. thread
  forgotten[#forgotten + 1] = 'T' .. thread .. '\0' .. ARGV[k]
end

local staged = ARGV[3] == 'staged'
if staged and (call('HGET', KEYS[8], 'S') ~= ARGV[fields] or call('ZCARD', KEYS[9]) ~= tonumber(ARGV[members])) then
  return refused({ 'gone' })
end

if ARGV[3] == 'drop' then
  unstage()
  in_batches('HDEL', T, ARGV, fields, last_field)
  in_batches('ZREM', I, ARGV, members, last_member)
else
  local kept, index = {}, {}
  local function keep(names, first, last)
    for k, content in ipairs(hmget(T, names, first, last)) do
      if content then
        kept[#kept + 1] = names[first + k - 1]
        kept[#kept + 1] = content
      end
    end
  end
  keep({ 'T', 'O' }, 1, 2) -- as they are now: they change without the revision
  if staged then
    call('UNLINK', T, I)
    call('RENAME', KEYS[8], T); call('PERSIST', T)
    if call('EXISTS', KEYS[9]) == 1 then call('RENAME', KEYS[9], I); call('PERSIST', I) end
  else
    keep(ARGV, fields, last_field)
    for k = members, last_member do
      index[#index + 1] = 0
      index[#index + 1] = ARGV[k]
    end
    unstage()
    call('UNLINK', T, I)
  end
  in_batches('HSET', T, kept)
  in_batches('ZADD', I, index)
end
in_batches('HSET', T, ARGV, replaced, last_replaced)
in_batches('ZREM', RUNS, forgotten)
s.rev = s.rev + 1
call('HSET', T, 'S', counts_text(s))
if s.checkpoints == 0 and s.writes == 0 then
  drop_thread()
else
  if ARGV[3] ~= 'drop' and left >= 0 then expire_at(now + left) end
  file_under(filed, last_filed)
  expire_bucket()
end
return { 'ok' }
