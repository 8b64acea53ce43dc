-- The steps of a list as it came, upwards from its last one, a bounded piece.
-- KEYS  1 requests
-- ARGV  1 id of the step to begin with  2 most steps to return
-- Returns id, value, id, value, …; a step that is missing ends it, with its id alone.

local result, id = {}, ARGV[1]
for _ = 1, tonumber(ARGV[2]) do
  result[#result + 1] = id
  local step = redis.call('HGET', KEYS[1], 'w:' .. id)
  if not step then break end
  result[#result + 1] = step
  id = string.sub(step, 1, 16)
  if string.sub(id, 1, 1) == '-' then break end
end
return result
