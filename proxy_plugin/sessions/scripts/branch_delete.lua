-- Takes a branch's name away; its nodes stay.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, ttl (ms), name
-- Returns {"ok"}, {"current"}, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, branches, tips = KEYS[1], KEYS[5], KEYS[6]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

if redis.call('HGET', meta, 'cur') == edit.name then return {'current'} end
local record = redis.call('HGET', branches, edit.name)
if record then
  redis.call('HDEL', branches, edit.name)
  redis.call('ZREM', tips, string.sub(record, 1, 32) .. '/' .. edit.name)
end
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok'}
