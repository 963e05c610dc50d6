-- What chunks and pages count for, asked before many are removed, so that the script that removes them need not look at all.
-- ARGV: 1 thread, then fields.  Reply: ok, bytes they take with their names, plain bytes of those that are chunks
-- Writes nothing. Holds as long as the thread's revision does.
-- include: receive
local first = 2
local stored, plain = measure_parts(ARGV, first, #ARGV)
return { 'ok', stored, plain }
