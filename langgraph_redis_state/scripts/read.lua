-- Runs one plain command that reads, or removes a key or members, for a Cluster that has moved its slot (client/exchange.py).
-- KEYS[1] its key. ARGV: 1 the command, then what follows the key. Without libraries.
-- Reply: that of the command
return { redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2)) }
