-- Gives a branch another name.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, ttl (ms), name, new; created: when the branch was made, 12 digits
-- Returns {"ok", record of the branch}, {"none"}, {"taken"}, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, branches, tips = KEYS[1], KEYS[5], KEYS[6]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

local record = redis.call('HGET', branches, edit.name)
local other = redis.call('HGET', branches, edit.new)
if not record then
  -- It may have been renamed by this very call, whose answer was lost.
  if other and string.sub(other, 33, 44) == edit.created then return {'ok', other} end
  return {'none'}
end
if edit.new ~= edit.name then
  if other then return {'taken'} end
  local head = string.sub(record, 1, 32)
  redis.call('HSET', branches, edit.new, record)
  redis.call('HDEL', branches, edit.name)
  redis.call('ZADD', tips, 0, head .. '/' .. edit.new)
  redis.call('ZREM', tips, head .. '/' .. edit.name)
  if redis.call('HGET', meta, 'cur') == edit.name then redis.call('HSET', meta, 'cur', edit.new) end
end
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok', record}
