-- Lists among the arguments: each has its length before it, in items of `width` values.
local function list(at, width) -- position of the first value, of the last, and of what follows
  local last = at + width * ARGV[at]
  return at + 1, last, last + 1
end
