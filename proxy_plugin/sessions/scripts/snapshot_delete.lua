-- Forgets a snapshot; the node that it names stays.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, ttl (ms), id
-- Returns {"ok"}, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, snapshots, named = KEYS[1], KEYS[8], KEYS[14]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

redis.call('ZREM', snapshots, edit.id)
redis.call('HDEL', named, edit.id)
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok'}
