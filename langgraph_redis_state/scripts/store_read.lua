-- Reads items of one bucket of the store by their names. Writes nothing.
-- ARGV: fields
-- Reply: ok, records (nil = not there, or expired), places of those whose TTL is due for a refresh | lost
-- include: store
local found, due = living(ARGV, 1, #ARGV)
for k = 1, #ARGV do
  if not found[k] then
    if check_bucket() == 'lost' then return { 'lost' } end
    break
  end
end
return { 'ok', found, due }
