-- The statement of a thread (field Z) and frozen entries (fields F<ns>\0<id>), which clients seal under a key: storage/statements.py.
-- Here they are bytes. A writer brings a list: the checksum of the statement it began with ('' = none), the new one, then frozen
-- fields, each with its content ('' = it goes); a field '' says that the writer knows of nothing at its checkpoint. An empty list:
-- the writer makes no statements, and may not write where there is one.
-- include: bytes writes
local function is_restated(sealed, state, first, last, place) -- rare: does the list fit what is there?
  if last < first then return not sealed end
  if sealed == ARGV[first + 1] then return true end -- a call that is repeated, since its reply was lost
  if (sealed and sub(sealed, 4, 19) or '') ~= ARGV[first] or (not sealed and state == 'ok') then return false end
  if not place then return true end
  local is_new, thawed = last > first + 2 and ARGV[last - 1] == '', false
  if is_new and (call('HEXISTS', T, 'C' .. place) == 1 or call('HEXISTS', T, 'W' .. place) == 1) then return false end
  if call('HEXISTS', T, 'F' .. place) == 0 then return true end
  for k = first + 2, last, 2 do thawed = thawed or ARGV[k] == 'F' .. place end
  return thawed
end
-- Whether only the statement changes, which is a change of the thread too: else who reads it in portions would not see it.
local function is_restated_anew(sealed, first, last) return last >= first and sealed ~= ARGV[first + 1] end -- rare
-- The reply to a writer whose list does not fit: what is there now, and what stands at its checkpoint.
local function statement_reply(sealed, state, first, last, place) -- rare
  if last < first then return { 'stated' } end
  local got = call('HMGET', T, 'F' .. place, 'C' .. place, 'W' .. place, 'W' .. place .. '\0')
  return { 'stated', sealed or false, got[1], got[2], all_writes(place, got[3], got[4]), state }
end
local function restate(first, last) -- rare: writes what the list brings
  if last < first then return end
  call('HSET', T, 'Z', ARGV[first + 1])
  for k = first + 2, last, 2 do
    if ARGV[k] == '' then break end
    if ARGV[k + 1] == '' then call('HDEL', T, ARGV[k]) else call('HSET', T, ARGV[k], ARGV[k + 1]) end
  end
end
