-- The server's clock. A script reads it once.
local clock = call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)
local now_us = clock[1] * 1000000 + clock[2]
