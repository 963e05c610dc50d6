-- Removes checkpoints with their writes, then every chunk and page that nothing refers to any more (mark and sweep).
-- ARGV: 1 thread, 2 revision the choice was made on, 3 number of pending-write fields to replace, then field and content
--       each ('' = remove it); then fields C<ns>\0<id> to remove
-- Tags of removed checkpoints go with them.
-- Reply: ok, checkpoints removed | stale (the thread changed since: choose again) | none | counts | settings
--        damaged, where (what stays refers to something that is not there, so nothing is removed)
-- Reads everything before it writes anything. Frees memory first and writes after: it works on a full server.
local state, s = open()
if not s then return { state } end
if state ~= 'ok' then return { 'none' } end
if ARGV[2] ~= number(s.rev) then return { 'stale' } end
probe()

local n_replaced, replaced, drop = tonumber(ARGV[3]), {}, {}
for k = 4, 2 + 2 * n_replaced, 2 do replaced[ARGV[k]] = ARGV[k + 1] end
for k = 4 + 2 * n_replaced, #ARGV do drop[ARGV[k]] = true end
local records, writes, parts, tags, there = {}, {}, {}, {}, {}
for _, field in ipairs(call('HKEYS', T)) do
  local kind = byte(field)
  if kind == 67 then records[#records + 1] = field
  elseif kind == 87 then writes[#writes + 1] = field
  elseif kind == 71 then tags[#tags + 1] = field
  elseif kind == 68 or kind == 80 then parts[#parts + 1] = field; there[field] = true end
end

local gone, gone_places, index, runs_gone, runs_kept, removed = {}, {}, {}, {}, {}, 0
local marked, damaged = {}, nil
local function mark(record, from, field)
  local pages, chunks, at = references(record, from + STAMP)
  for k = 0, pages + chunks - 1 do
    local name = (k < pages and 'P' or 'D') .. sub(record, at + 16 * k, at + 16 * k + 15)
    if not there[name] then damaged = field end
    if k < pages and not marked[name] then
      local page = call('HGET', T, name) or ''
      if #page % 16 ~= 0 then damaged = field end
      for p = 1, #page - 15, 16 do
        local chunk = 'D' .. sub(page, p, p + 15)
        if not there[chunk] then damaged = field end
        marked[chunk] = true
      end
    end
    marked[name] = true
  end
end
local contents = hmget(T, records)
for k, field in ipairs(records) do
  local _, run = lineage(contents[k])
  if drop[field] then
    local ns, id = split(field)
    gone[#gone + 1] = field
    gone_places[sub(field, 2)] = true
    index[#index + 1] = field
    if ns ~= '' then index[#index + 1] = 'A' .. id .. '\0' .. ns end
    if run ~= '' then runs_gone[run] = true end
    tally(s, contents[k], STAMP + 1, -1)
    s.stored = s.stored - #field - #contents[k]
    removed = removed + 1
  else
    if run ~= '' then runs_kept[run] = true end
    mark(contents[k], 1, field)
  end
end
if removed == 0 and n_replaced == 0 then return { 'ok', 0 } end
local rewritten = {}
contents = hmget(T, writes)
for k, field in ipairs(writes) do
  local blob, new = contents[k], replaced[field]
  local function uncount(at)
    s.writes = s.writes - 1
    tally(s, blob, at + 4 + STAMP, -1)
  end
  local sound
  if gone_places[sub(field, 2)] or new == '' then
    gone[#gone + 1] = field
    s.stored = s.stored - #field - #blob
    sound = walk(blob, uncount)
  elseif new then
    rewritten[#rewritten + 1] = field
    rewritten[#rewritten + 1] = new
    s.stored = s.stored - #blob + #new
    sound = walk(blob, uncount) and walk(new, function(at)
      s.writes = s.writes + 1
      tally(s, new, at + 4 + STAMP, 1)
      mark(new, at + 4, field)
    end)
  else
    sound = walk(blob, function(at) mark(blob, at + 4, field) end)
  end
  if not sound then damaged = field end
end
contents = hmget(T, tags)
for k, field in ipairs(tags) do
  if gone_places[sub(contents[k], 20)] then -- format, key id, checksum, then the field of its checkpoint
    gone[#gone + 1] = field
    index[#index + 1] = field
    s.stored = s.stored - #field - #contents[k]
  end
end
if damaged then return { 'damaged', damaged } end
for _, field in ipairs(parts) do
  if not marked[field] then
    gone[#gone + 1] = field
    local content = call('HGET', T, field)
    s.stored = s.stored - #field - #content
    if byte(field) == 68 then
      s.chunks = s.chunks - 1
      s.unique = s.unique - plain_size(content)
    end
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
  repeat until forget(thread, 1000)
end
return { 'ok', removed }
