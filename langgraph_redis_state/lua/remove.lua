-- Removes checkpoints with their pending writes, tags, and the chunks and pages that nothing else refers to. What goes and what
-- it counts for was worked out by the client from verified headers (removal.py) on the revision it names, so nothing
-- else is looked at. Either what goes is taken out, or both keys are made anew from what stays, whichever is less: to leave
-- ten checkpoints of thousands is as short as to take ten away.
-- ARGV: 1 thread, 2 that revision, 3 'drop' what is listed | 'keep' it, with T and O, and nothing else; 4 to 10 by how much
--       fewer: checkpoints, writes, chunks, stored, logical, unique, referred (see S); then six lists, each with its length
--       before it: fields; members of the index; run ids that the thread has no more; fields to replace, each with its
--       content; chunks and pages that go and are not in those numbers yet, at most a few hundred; metadata as in file_under()
-- Reply: ok | stale (the thread changed since: choose again) | none | counts | settings
-- Reads everything before it writes anything. Frees memory first and writes after: it works on a full server, which lets a
-- script end that has begun to write.
local state, s = open()
if not s then return { state } end
if state ~= 'ok' then return { 'none' } end
if ARGV[2] ~= revision(s) then return { 'stale' } end
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

if ARGV[3] == 'drop' then
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
  keep({ 'T', 'O' }, 1, 2)
  keep(ARGV, fields, last_field)
  for k = members, last_member do
    index[#index + 1] = 0
    index[#index + 1] = ARGV[k]
  end
  call('UNLINK', T, I)
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
  if ARGV[3] == 'keep' and left >= 0 then expire_at(now + left) end
  file_under(filed, last_filed)
end
return { 'ok' }
