-- Names the end of a path.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now (ms), now_hex (12 digits), ttl (ms), name, node (dashes: before the first message)
-- Returns {"ok", record of the branch}, {"taken"}, or {"gone"} where there is no such session.

local edit = cjson.decode(ARGV[1])
local meta, branches, tips = KEYS[1], KEYS[5], KEYS[6]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

local made = edit.node .. edit.now_hex .. edit.now_hex
local there = redis.call('HGET', branches, edit.name)
if there and there ~= made then return {'taken'} end
redis.call('HSET', branches, edit.name, made)
redis.call('ZADD', tips, 0, edit.node .. '/' .. edit.name)
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok', made}
