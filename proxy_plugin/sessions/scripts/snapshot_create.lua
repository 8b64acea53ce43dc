-- Gives a node a name that is kept for a while.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, ttl (ms), id, expires (ms, or "+inf"), named: JSON object of the snapshot without its
--         end; node, messages, size: what it names, left out for the current head
-- Returns {"ok", JSON of the snapshot, expires}, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, snapshots, named = KEYS[1], KEYS[8], KEYS[14]
local EXPIRED_REMOVED = 100
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', snapshots, '-inf', edit.now, 'LIMIT', 0, EXPIRED_REMOVED)) do
  redis.call('ZREM', snapshots, id)
  redis.call('HDEL', named, id)
end
local function text(field)
  local value = redis.call('HGET', meta, field)
  return value and cjson.encode(value) or 'null'
end
local function number(field) -- 0 where it is damaged
  return string.format('%.0f', math.min(math.max(0, tonumber(redis.call('HGET', meta, field) or '') or 0), 2^53))
end
local node, messages, size = edit.node, edit.messages, edit.size
if not node then
  node = redis.call('HGET', meta, 'head') or ''
  messages = number('messages')
  size = number('bytes')
end
local snapshot = edit.named .. ',"title":' .. text('title') .. ',"agent":' .. text('agent')
  .. ',"node":"' .. node .. '","messages":' .. messages .. ',"size":' .. size .. '}'
if redis.call('HSETNX', named, edit.id, snapshot) == 1 then redis.call('ZADD', snapshots, edit.expires, edit.id) end
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok', redis.call('HGET', named, edit.id), redis.call('ZSCORE', snapshots, edit.id)}
