-- Writing: the pages and chunks that came with the call, or are in staging, or are there already.
-- include: bytes arguments batches record
-- The writing side, shared by put and put_writes. References of the records in `incoming` that are neither there nor sent
-- (ARGV from `at`: count, then page digest and content; count, then chunk digest and content; staging in KEYS[8]) are
-- returned behind the word 'missing', and then nothing may be written; else the contents to write, and their bytes.
local function plain_size(content) -- of a packed chunk, codec.py
  return byte(content) == 0 and #content - 1 or read_uint(content, 2, 4)
end
local function measure_parts(names, first, last) -- rare: chunks and pages: stored bytes with their names, plain bytes of the chunks
  local stored, plain = 0, 0
  local contents = hmget(T, names, first, last)
  for k = first, last do
    local content = contents[k - first + 1]
    if content then
      stored = stored + #names[k] + #content
      if byte(names[k]) == 68 then plain = plain + plain_size(content) end
    end
  end
  return stored, plain
end
local function resolve_parts(incoming, at)
  local pages, chunks, missing, fields, done = {}, {}, { 'missing' }, {}, {}
  local bytes, count, unique = 0, 0, 0
  local first, last
  first, last, at = list(at, 2)
  for k = first, last, 2 do pages[ARGV[k]] = ARGV[k + 1] end
  first, last = list(at, 2)
  for k = first, last, 2 do chunks[ARGV[k]] = ARGV[k + 1] end
  local staged = KEYS[8]
  local function need(field, content) -- one that is not there, or came with the call, or may be staged
    if done[field] then return end
    done[field] = true
    content = content or (staged and call('HGET', KEYS[8], field))
    if not content then
      if call('HEXISTS', T, field) == 0 then missing[#missing + 1] = field end
      return
    end
    local old, chunk = call('HGET', T, field), byte(field) == 68
    if old == content then return end
    if old then -- what was sent again replaces what is there, which may be damaged
      bytes = bytes - 17 - #old
      if chunk then count, unique = count - 1, unique - plain_size(content) end
    end
    fields[#fields + 1] = field
    fields[#fields + 1] = content
    bytes = bytes + 17 + #content
    if chunk then
      count, unique = count + 1, unique + plain_size(content)
      return
    end
    for p = 1, #content - 15, 16 do -- a page that is there has all its chunks there: they come and go together
      local name = sub(content, p, p + 15)
      if chunks[name] or staged or call('HEXISTS', T, 'D' .. name) == 0 then need('D' .. name, chunks[name]) end
    end
  end
  for _, record in ipairs(incoming) do -- without stamp
    local n_pages, n_chunks, first = references(record, 1)
    for k = 1, n_pages + n_chunks do
      local name, kind, sent = sub(record, first, first + 15), 'D', chunks
      if k <= n_pages then kind, sent = 'P', pages end
      if sent[name] or staged or call('HEXISTS', T, kind .. name) == 0 then need(kind .. name, sent[name]) end
      first = first + 16
    end
  end
  return missing, fields, bytes, count, unique
end
local function resolve_rarely(incoming, at) return resolve_parts(incoming, at) end -- rare: where most calls bring no parts
