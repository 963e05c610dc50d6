-- The counts of a thread (field S) and its revision. thread_fields.py reads the same line.
-- include: bytes clock
local function seal_line(line) -- S or T, with its check: see records.py
  return line .. ' ' .. sub(redis.sha1hex(line .. thread), 1, 8)
end
-- S: '1', these numbers, check. `born`: when the thread was made, in µs of the server's clock, so that a revision means this
-- thread, and not one that was deleted and had the same id. The last two are plain bytes of chunks, each chunk once and as often
-- as records refer to it: what sharing saves.
local COUNTS = { 'born', 'changes', 'versions', 'checkpoints', 'writes', 'chunks', 'stored', 'logical', 'unique', 'referred' }
local TOTALS = 4 -- the first of those that say what there is
local PATTERN, LINE = '^(1' .. (' (%d+)'):rep(#COUNTS) .. ') %x+$', '1' .. (' %.0f'):rep(#COUNTS)
local function parse_counts(raw) -- nil if it is damaged
  local s = {}
  if not raw then
    for _, name in ipairs(COUNTS) do s[name] = 0 end
    s.born = now_us
    return s
  end
  local found = { raw:match(PATTERN) }
  if not found[1] or seal_line(found[1]) ~= raw then return nil end
  for k, name in ipairs(COUNTS) do s[name] = tonumber(found[k + 1]) end
  return s
end
local function format_counts(s)
  local values = {}
  for k, name in ipairs(COUNTS) do values[k] = s[name] end
  return seal_line(string.format(LINE, unpack(values)))
end
local function revision(s) return number(s.born) .. ' ' .. number(s.changes) end
local function add_to_counts(s, record, at, sign) -- the values of a record, whose header begins at `at`, come or go
  s.logical = s.logical + sign * read_uint(record, at + 10, 5)
  s.referred = s.referred + sign * read_uint(record, at + 15, 5)
end
