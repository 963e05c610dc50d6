-- The counts of a thread (field S) and its revision. thread_fields.py reads the same line.
-- include: bytes clock
local function seal_line(line) -- S or T, with its check: see records.py
  return line .. ' ' .. sub(redis.sha1hex(line .. thread), 1, 8)
end
-- S: '1 born revision versions checkpoints writes chunks stored logical unique referred check'; the last two in plain bytes of
-- chunks, each chunk once and as often as records refer to it: what sharing saves
local function parse_counts(raw)
  if not raw then -- born now, so that a revision means this thread, and not one that was deleted and had the same id
    return {
      born = now_us, rev = 0, versions = 0, checkpoints = 0, writes = 0, chunks = 0, stored = 0, logical = 0, unique = 0, referred = 0
    }
  end
  local line, born, rev, versions, checkpoints, writes, chunks, stored, logical, unique, referred =
    raw:match('^(1' .. (' (%d+)'):rep(10) .. ') %x+$')
  if not line or seal_line(line) ~= raw then return nil end
  return {
    born = tonumber(born), rev = tonumber(rev), versions = tonumber(versions), checkpoints = tonumber(checkpoints),
    writes = tonumber(writes), chunks = tonumber(chunks), stored = tonumber(stored), logical = tonumber(logical),
    unique = tonumber(unique), referred = tonumber(referred)
  }
end
local function format_counts(s)
  return seal_line(string.format(
    '1 %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f',
    s.born, s.rev, s.versions, s.checkpoints, s.writes, s.chunks, s.stored, s.logical, s.unique, s.referred
  ))
end
local function revision(s) return number(s.born) .. ' ' .. number(s.rev) end
local function add_to_counts(s, record, at, sign) -- the values of a record, whose header begins at `at`, come or go
  s.logical = s.logical + sign * read_uint(record, at + 10, 5)
  s.referred = s.referred + sign * read_uint(record, at + 15, 5)
end
