-- Removes checkpoints with their writes, then every chunk and page that nothing refers to any more (mark and sweep).
-- ARGV: 1 thread, 2 revision the choice was made on ('' = any), 3 'these' | 'runs',
--       4 number of pending-write fields to replace, then field and content each ('' = remove it);
--       then these: fields C<ns>\0<id>   runs: run ids
-- Tags of removed checkpoints go with them.
-- Reply: ok, checkpoints removed | stale (the thread changed since: choose again) | none | counts | settings
-- Frees memory first and writes after: it works on a full server.
local state, s = open()
if not s then return { state } end
if state ~= 'ok' then return { 'none' } end
if ARGV[2] ~= '' and ARGV[2] ~= number(s.rev) then return { 'stale' } end

local by_run, drop = ARGV[3] == 'runs', {}
local n_replaced, replaced = tonumber(ARGV[4]), {}
for k = 5, 3 + 2 * n_replaced, 2 do replaced[ARGV[k]] = ARGV[k + 1] end
for k = 5 + 2 * n_replaced, #ARGV do drop[ARGV[k]] = true end
local records, writes, parts, tags = {}, {}, {}, {}
for _, field in ipairs(call('HKEYS', T)) do
  local kind = byte(field)
  if kind == 67 then records[#records + 1] = field
  elseif kind == 87 then writes[#writes + 1] = field
  elseif kind == 71 then tags[#tags + 1] = field
  elseif kind == 68 or kind == 80 then parts[#parts + 1] = field end
end

local gone, gone_places, index, runs_gone, runs_kept, removed = {}, {}, {}, {}, {}, 0
local marked = {}
local function mark(record)
  local pages, chunks, at = references(record, STAMP + 1)
  for k = 0, pages + chunks - 1 do
    local name = (k < pages and 'P' or 'D') .. sub(record, at + 16 * k, at + 16 * k + 15)
    if k < pages and not marked[name] then
      local page = call('HGET', T, name) or ''
      for p = 1, #page - 15, 16 do marked['D' .. sub(page, p, p + 15)] = true end
    end
    marked[name] = true
  end
end
local contents = hmget(T, records)
for k, field in ipairs(records) do
  local _, run = lineage(contents[k])
  if drop[by_run and run or field] then
    local ns, id = split(field)
    gone[#gone + 1] = field
    gone_places[sub(field, 2)] = true
    index[#index + 1] = field
    if ns ~= '' then index[#index + 1] = 'A' .. id .. '\0' .. ns end
    if run ~= '' then runs_gone[run] = true end
    s.logical = s.logical - u(contents[k], STAMP + 11, 5)
    s.stored = s.stored - #field - #contents[k]
    removed = removed + 1
  else
    if run ~= '' then runs_kept[run] = true end
    mark(contents[k])
  end
end
if removed == 0 and n_replaced == 0 then return { 'ok', 0 } end
local function each_write(blob, visit)
  local at = 3
  while at < #blob do
    local size = u(blob, at, 4)
    visit(sub(blob, at + 4, at + 3 + size))
    at = at + 4 + size
  end
end
local function uncount(record)
  s.writes = s.writes - 1
  s.logical = s.logical - u(record, STAMP + 11, 5)
end
local function count(record)
  s.writes = s.writes + 1
  s.logical = s.logical + u(record, STAMP + 11, 5)
  mark(record)
end
local rewritten = {}
contents = hmget(T, writes)
for k, field in ipairs(writes) do
  local blob, new = contents[k], replaced[field]
  if gone_places[sub(field, 2)] or new == '' then
    gone[#gone + 1] = field
    s.stored = s.stored - #field - #blob
    each_write(blob, uncount)
  elseif new then
    rewritten[#rewritten + 1] = field
    rewritten[#rewritten + 1] = new
    s.stored = s.stored - #blob + #new
    each_write(blob, uncount)
    each_write(new, count)
  elseif byte(blob, 2) == 1 then
    each_write(blob, mark)
  end
end
contents = hmget(T, tags)
for k, field in ipairs(tags) do
  if gone_places[sub(contents[k], 20)] then -- format, key id, checksum, then the field of its checkpoint
    gone[#gone + 1] = field
    index[#index + 1] = field
    s.stored = s.stored - #field - #contents[k]
  end
end
for _, field in ipairs(parts) do
  if not marked[field] then
    gone[#gone + 1] = field
    s.stored = s.stored - #field - call('HSTRLEN', T, field)
    if byte(field) == 68 then s.chunks = s.chunks - 1 end
  end
end

in_batches('HDEL', T, gone)
in_batches('ZREM', I, index)
in_batches('HSET', T, rewritten)
for run in pairs(runs_gone) do
  if not runs_kept[run] then call('ZREM', RUNS, 'R' .. run .. '\0' .. thread, 'T' .. thread .. '\0' .. run) end
end
s.checkpoints = s.checkpoints - removed
s.rev = s.rev + 1
call('HSET', T, 'S', counts_text(s))
if s.checkpoints == 0 and s.writes == 0 then
  call('UNLINK', T, I)
  call('ZREM', THREADS, thread)
  call('ZREM', EXPIRY, thread)
  forget(thread, 1000)
end
return { 'ok', removed }
