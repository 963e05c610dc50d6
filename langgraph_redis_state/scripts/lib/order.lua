-- The order of ids, which is that of bytes.
local function newest(ns) -- greatest id of a namespace, or nil
  local member = call('ZREVRANGEBYLEX', I, '[C' .. ns .. '\0\255', '[C' .. ns .. '\0', 'LIMIT', 0, 1)[1]
  if member then return sub(member, #ns + 3) end
end
local function is_greater(a, b) -- rare: in the order of bytes; Lua's own comparison follows the locale of the server
  for k = 1, math.min(#a, #b) do
    local difference = byte(a, k) - byte(b, k)
    if difference ~= 0 then return difference > 0 end
  end
  return #a > #b
end
