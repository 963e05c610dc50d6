-- Pending writes that follow: the first of their checkpoint.
if ARGV[4] ~= '' then
  local field, at = 'W' .. ARGV[2] .. '\0' .. ARGV[3], 9 + ARGV[8]
  local first, last = at + 1, at + 3 * ARGV[at]
  local looks, fields = { 'S', 'T', 'Z', field, field .. '\0' }, { 'S', ARGV[5], field, false }
  if ARGV[last + 2] ~= '0' or ARGV[last + 3] ~= '0' then bring_parts(last + 2, looks, fields) end
  if is_unchanged(ARGV[4], looks) then
    local moment = enter_bucket()
    if not entered then
      local before, n = moment .. sub(ARGV[4], 1, 5), (last - first + 1) / 3
      local content = { '\1' .. char(floor(n / 65536), floor(n / 256) % 256, n % 256) }
      for k = first, last, 3 do
        local record = ARGV[k + 2]
        local size = #record
        local low = char(floor(size / 16777216) % 256, floor(size / 65536) % 256, floor(size / 256) % 256, size % 256)
        local made = stamped(before .. '\0' .. low, field .. '\0' .. ARGV[k + 1]) .. record
        size = #made
        content[#content + 1] = char(floor(size / 16777216), floor(size / 65536) % 256, floor(size / 256) % 256, size % 256)
        content[#content + 1] = made
      end
      fields[4] = table.concat(content)
      call('HSET', T, unpack(fields))
      return answered({ 'ok' })
    end
  end
end
