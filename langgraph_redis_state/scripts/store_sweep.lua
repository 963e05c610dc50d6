-- Removes items of one bucket of the store that expired.
-- ARGV: 1 most items
-- Reply: ok, how many were removed, 1 if there may be more
-- include: store
local most = tonumber(ARGV[1])
local removed = tidy_items(most)
if removed > 0 then expire_items() end
return { 'ok', removed, removed == most and 1 or 0 }
