-- Makes a branch the current one.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, ttl (ms), name; head, messages, bytes: what is known of its path, head "" where that has
--         no message; record_head: the head as it stands in the branch's record
-- Returns {"ok"}, {"moved"} where the branch's head is another one now, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, branches = KEYS[1], KEYS[5]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

local record = redis.call('HGET', branches, edit.name)
if not record or string.sub(record, 1, 32) ~= edit.record_head then return {'moved'} end
redis.call('HSET', meta, 'cur', edit.name, 'head', edit.head, 'messages', edit.messages, 'bytes', edit.bytes, 'back', '1')
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok'}
