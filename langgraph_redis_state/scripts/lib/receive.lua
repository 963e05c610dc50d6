-- Writing: the pages and chunks that came with the call, or are in staging, or are there already.
-- include: bytes arguments batches record
-- The writing side, shared by put and put_writes. References of the records in `incoming` that are neither there nor sent
-- (ARGV from `at`: count, then page digest and content; count, then chunk digest and content; staging in KEYS[8]) are
-- returned behind the word 'missing', and then nothing may be written; else the contents to write, and their bytes.
local function plain_size(content) -- of a packed chunk, codec.py
  return byte(content) == 0 and #content - 1 or read_uint(content, 2, 4)
end
local function measure_parts(names, first, last) -- chunks and pages: stored bytes with their names, plain bytes of the chunks
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
  local pages, chunks, missing, fields, bytes, checked, unique = {}, {}, { 'missing' }, {}, 0, {}, 0
  local first, last
  first, last, at = list(at, 2)
  for k = first, last, 2 do pages[ARGV[k]] = ARGV[k + 1] end
  first, last = list(at, 2)
  for k = first, last, 2 do chunks[ARGV[k]] = ARGV[k + 1] end
  local count = 0
  local function need(kind, name, sent)
    local field = kind .. name
    if checked[field] then return end
    checked[field] = true
    local content = sent[name] or (KEYS[8] and call('HGET', KEYS[8], field))
    if call('HEXISTS', T, field) == 1 then
      -- what was sent again replaces what is there, which may be damaged
      if not content then return end
      local there = call('HGET', T, field)
      if there == content then return end
      bytes = bytes - 17 - #there
      if kind == 'D' then count, unique = count - 1, unique - plain_size(content) end
    elseif not content then
      missing[#missing + 1] = field
      return
    end
    fields[#fields + 1] = field
    fields[#fields + 1] = content
    bytes = bytes + 17 + #content
    if kind == 'D' then count, unique = count + 1, unique + plain_size(content) end
    return content
  end
  for _, record in ipairs(incoming) do -- without stamp
    local n_pages, n_chunks, first = references(record, 1)
    for k = 0, n_pages + n_chunks - 1 do
      local name = sub(record, first + 16 * k, first + 16 * k + 15)
      if k >= n_pages then
        need('D', name, chunks)
      else -- a page that is there has all its chunks there: they come and go together
        local page = need('P', name, pages)
        if page then
          for p = 1, #page - 15, 16 do need('D', sub(page, p, p + 15), chunks) end
        end
      end
    end
  end
  return missing, fields, bytes, count, unique
end
