-- Reading: the pages and chunks that records refer to, each once.
-- include: bytes batches record writes
-- Pages and chunks that records refer to, each once: { digest, content, ... } twice. `record` begins with its stamp.
-- Those whose digests the reader says it has are left out, and so are the chunks of such a page.
local function collect_parts(have_pages, have_chunks)
  local seen_pages, pages, seen, chunks = {}, {}, {}, {}
  local had = {}
  for at = 1, #(have_pages or '') - 15, 16 do
    local page = sub(have_pages, at, at + 15)
    seen_pages[page] = true
    had[#had + 1] = 'P' .. page
  end
  for at = 1, #(have_chunks or '') - 15, 16 do seen[sub(have_chunks, at, at + 15)] = true end
  local self = {}
  function self.add(record)
    local n_pages, n_chunks, at = references(record, STAMP + 1)
    for k = 0, n_pages - 1 do
      local page = sub(record, at + 16 * k, at + 16 * k + 15)
      if not seen_pages[page] then seen_pages[page] = true; pages[#pages + 1] = page end
    end
    at = at + 16 * n_pages
    for k = 0, n_chunks - 1 do
      local chunk = sub(record, at + 16 * k, at + 16 * k + 15)
      if not seen[chunk] then seen[chunk] = true; chunks[#chunks + 1] = chunk end
    end
  end
  function self.add_writes(blob) -- the bytes that the values of these writes take, serialized
    local bytes = 0
    if blob then
      walk_writes(blob, function(at, size)
        if references(blob, at + 4 + STAMP) + read_uint(blob, at + 4 + STAMP + 5, 2) > 0 then
          self.add(sub(blob, at + 4, at + 3 + size))
          bytes = bytes + read_uint(blob, at + 4 + STAMP + 10, 5)
        end
      end)
    end
    return bytes
  end
  function self.result(without_chunks)
    local page_names, chunk_names = {}, {}
    if #pages > 0 then -- a new page mostly names chunks that pages before it named
      for _, content in pairs(hmget(T, had)) do
        for at = 1, #(content or '') - 15, 16 do seen[sub(content, at, at + 15)] = true end
      end
    end
    for k, page in ipairs(pages) do page_names[k] = 'P' .. page end
    local contents, out_pages = hmget(T, page_names), {}
    for k, page in ipairs(pages) do
      out_pages[2 * k - 1], out_pages[2 * k] = page, contents[k]
      for at = 1, #(contents[k] or '') - 15, 16 do
        local chunk = sub(contents[k], at, at + 15)
        if not seen[chunk] then seen[chunk] = true; chunks[#chunks + 1] = chunk end
      end
    end
    if without_chunks then return out_pages, {} end
    for k, chunk in ipairs(chunks) do chunk_names[k] = 'D' .. chunk end
    contents = hmget(T, chunk_names)
    local out = {}
    for k, chunk in ipairs(chunks) do out[2 * k - 1], out[2 * k] = chunk, contents[k] end
    return out_pages, out
  end
  return self
end
