-- Removes checkpoints with their pending writes, tags, and the chunks and pages that nothing else refers to. What goes was
-- chosen by the client from verified headers (operations.py, remove) on the revision it names; nothing else is looked at, so
-- the time this takes depends on what goes, not on what stays.
-- ARGV: 1 thread, 2 that revision, then five lists, each with its length before it: pending-write fields to replace, field and
--       content ('' = remove it); fields C<ns>\0<id> to remove; fields of tags; run ids that the thread has no more; fields
--       of chunks and pages
-- Reply: ok, checkpoints removed | stale (the thread changed since: choose again) | none | counts | settings
--        damaged, where (a list of pending writes is not what was written, and nothing is removed)
-- Reads everything before it writes anything. Frees memory first and writes after: it works on a full server.
local state, s = open()
if not s then return { state } end
if state ~= 'ok' then return { 'none' } end
if ARGV[2] ~= revision(s) then return { 'stale' } end
probe()

local at = 3
local function list(width)
  local items, n = {}, tonumber(ARGV[at])
  for k = 1, n * width do items[k] = ARGV[at + k] end
  at = at + 1 + n * width
  return items
end
local replaced, dropped, tags, runs, parts = list(2), list(1), list(1), list(1), list(1)

local gone, index, rewritten, damaged = {}, {}, {}, nil
local function goes(field, content)
  gone[#gone + 1] = field
  s.stored = s.stored - #field - #content
end
local function recount(field, blob, sign)
  local sound = walk(blob, function(position)
    s.writes = s.writes + sign
    tally(s, blob, position + 4 + STAMP, sign)
  end)
  if not sound then damaged = field end
end
local contents = hmget(T, dropped)
for k, field in ipairs(dropped) do
  local ns, id = split(field)
  goes(field, contents[k])
  tally(s, contents[k], STAMP + 1, -1)
  s.checkpoints = s.checkpoints - 1
  index[#index + 1] = field
  if ns ~= '' then index[#index + 1] = 'A' .. id .. '\0' .. ns end
end
local writes = {}
for k, field in ipairs(dropped) do writes[k] = 'W' .. sub(field, 2) end
contents = hmget(T, writes)
for k, field in ipairs(writes) do
  if contents[k] then
    goes(field, contents[k])
    recount(field, contents[k], -1)
  end
end
for k = 1, #replaced, 2 do
  local field, new, old = replaced[k], replaced[k + 1], call('HGET', T, replaced[k])
  if old then
    recount(field, old, -1)
    if new == '' then
      goes(field, old)
    else
      recount(field, new, 1)
      s.stored = s.stored - #old + #new
      rewritten[#rewritten + 1] = field
      rewritten[#rewritten + 1] = new
    end
  end
end
contents = hmget(T, tags)
for k, field in ipairs(tags) do
  goes(field, contents[k])
  index[#index + 1] = field
end
contents = hmget(T, parts)
for k, field in ipairs(parts) do
  goes(field, contents[k])
  if byte(field) == 68 then
    s.chunks = s.chunks - 1
    s.unique = s.unique - plain_size(contents[k])
  end
end
if damaged then return { 'damaged', damaged } end
if #gone == 0 and #rewritten == 0 then
  write_again('S', counts_text(s))
  return { 'ok', 0 }
end

in_batches('HDEL', T, gone)
in_batches('ZREM', I, index)
in_batches('HSET', T, rewritten)
for _, run in ipairs(runs) do call('ZREM', RUNS, 'R' .. run .. '\0' .. thread, 'T' .. thread .. '\0' .. run) end
s.rev = s.rev + 1
call('HSET', T, 'S', counts_text(s))
if s.checkpoints == 0 and s.writes == 0 then
  call('UNLINK', T, I)
  call('ZREM', THREADS, thread)
  call('ZREM', EXPIRY, thread)
  repeat until forget(thread, 1000)
end
return { 'ok', #dropped }
