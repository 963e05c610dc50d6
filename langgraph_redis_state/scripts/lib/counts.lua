-- The counts of a thread (field S) and its revision. thread_fields.py reads the same line.
-- include: bytes clock
local function seal_line(line) -- S or T, with its check: see records.py
  return line .. ' ' .. sub(redis.sha1hex(line .. thread), 1, 8)
end
-- S: '1', these numbers, check. `born`: when the thread was made, as text, in µs of the server's clock, so that a revision means this
-- thread, and not one that was deleted and had the same id. The last two are plain bytes of chunks, each chunk once and as often
-- as records refer to it: what sharing saves. Behind them stands the token of the call that wrote the line, so that no two writes
-- leave the same line: who finds the one that it left knows that nobody wrote in between.
local COUNTS = { 'born', 'changes', 'versions', 'checkpoints', 'writes', 'chunks', 'stored', 'logical', 'unique', 'referred' }
local TOTALS = 4 -- the first of those that say what there is
local function parse_counts(raw) -- nil if it is damaged
  if not raw then
    local s = { born = number(now_us), changes = 0, versions = 0, checkpoints = 0, writes = 0, ending = '' }
    s.chunks, s.stored, s.logical, s.unique, s.referred = 0, 0, 0, 0, 0
    return s
  end
  local line, a, b, c, d, e, f, g, h, i, j, by =
    raw:match('^(1 (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)) %x+$')
  if not line or seal_line(line) ~= raw then return nil end
  -- one constructor, and numbers without tonumber(): this stands in every write
  return {
    born = a, changes = b + 0, versions = c + 0, checkpoints = d + 0, writes = e + 0,
    chunks = f + 0, stored = g + 0, logical = h + 0, unique = i + 0, referred = j + 0,
    ending = sub(raw, #line - #by), -- with what that names, as following.lua looks for it
  }
end
local function format_counts(s)
  local large = math.max(s.stored, s.logical, s.unique, s.referred) >= SMALL
  local form = large and '1 %s %d %d %d %d %d %.0f %.0f %.0f %.0f %s' or '1 %s %d %d %d %d %d %d %d %d %d %s'
  return seal_line(form:format(s.born, s.changes, s.versions, s.checkpoints, s.writes,
    s.chunks, s.stored, s.logical, s.unique, s.referred, token))
end
local function revision(s) return s.born .. ' ' .. number(s.changes) end -- rare
local function add_to_counts(s, record, at, sign) -- the values of a record, whose header begins at `at`, come or go
  local a, b, c, d, e, f, g, h, i, j = byte(record, at + 10, at + 19)
  s.logical = s.logical + sign * ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e)
  s.referred = s.referred + sign * ((((f * 256 + g) * 256 + h) * 256 + i) * 256 + j)
end
