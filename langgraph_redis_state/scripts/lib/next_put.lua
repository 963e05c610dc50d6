-- A put that follows. Then no metadata is indexed, and no statement made.
if ARGV[5] ~= '' then
  local ns, id, run, field = ARGV[2], ARGV[3], ARGV[8], 'C' .. ARGV[2] .. '\0' .. ARGV[3]
  local looks, fields = { 'S', 'T', 'Z', field }, { 'S', ARGV[6], field, false }
  bring_parts(15 + ARGV[13], looks, fields)
  if is_unchanged(ARGV[5], looks) then
    if run ~= '' then call('ZCARD', RUNS) end -- of the wrong type, it fails before anything is written
    local moment = enter_bucket()
    if not entered then
      fields[4] = stamped(moment .. sub(ARGV[5], 1, 10), field) .. ARGV[4]
      call('HSET', T, unpack(fields))
      call('ZADD', I, 0, field)
      if ns ~= '' then call('ZADD', I, 0, 'A' .. id .. '\0' .. ns) end
      if run ~= '' then call('ZADD', RUNS, 0, 'R' .. run .. '\0' .. thread, 0, 'T' .. thread .. '\0' .. run) end
      local reply = { 'ok' }
      if ARGV[11] ~= '' then reply[2] = call('ZLEXCOUNT', I, '[C\0', '[C\0\255') end
      return answered(reply)
    end
  end
end
