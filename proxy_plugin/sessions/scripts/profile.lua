-- Changes what a user gave to a session.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, ttl (ms), and of title, description, metadata (JSON), aliases (JSON) those that change;
--         "" takes one away
-- Returns {"ok"}, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, profile = KEYS[1], KEYS[15]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

local function put(key, field)
  local value = edit[field]
  if value == '' then redis.call('HDEL', key, field) elseif value then redis.call('HSET', key, field, value) end
end
put(meta, 'title')
for _, field in ipairs({'description', 'metadata', 'aliases'}) do put(profile, field) end
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok'}
