-- Begins a subtask before its first message, or a further attempt at it.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, ttl (ms), attempts (how many there may be), and in the words of commit.lua: subtask, record,
--         snapshot, named, expires, again
--       2… fields of the subtasks whose results it needs
-- Returns {"begun"} with a snapshot, {"again"}, {"running"}, {"over", state}, {"needs", number of the first one that
--         is not completed}, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, subtasks, snapshots, named = KEYS[1], KEYS[7], KEYS[8], KEYS[14]
local field, EXPIRED_REMOVED = edit.subtask, 100
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

local function became(of)
  if redis.call('HEXISTS', subtasks, of) == 0 then return {state = 'unknown'} end
  local fine, value = pcall(cjson.decode, redis.call('HGET', subtasks, of .. ':end') or '')
  return fine and type(value) == 'table' and value or {state = 'in_progress'}
end

local was = became(field)
local attempts = was.attempts or 1
if was.state == 'in_progress' then return {'running'} end
if was.state == 'completed' or (was.state == 'failed' and attempts >= tonumber(edit.attempts)) then
  return {'over', was.state}
end
for i = 2, #ARGV do
  if became(ARGV[i]).state ~= 'completed' then return {'needs', tostring(i - 1)} end
end

local new = was.state == 'unknown'
if new then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', snapshots, '-inf', edit.now, 'LIMIT', 0, EXPIRED_REMOVED)) do
    redis.call('ZREM', snapshots, id)
    redis.call('HDEL', named, id)
  end
  local title = redis.call('HGET', meta, 'title')
  redis.call('ZADD', snapshots, edit.expires, edit.snapshot)
  redis.call('HSET', named, edit.snapshot, '{"title":' .. (title and cjson.encode(title) or 'null') .. ',' .. edit.named)
  redis.call('HSET', subtasks, field, edit.record)
  redis.call('HINCRBY', meta, 'subtasks', 1)
else
  redis.call('HSET', subtasks, field .. ':end', '{"attempts":' .. attempts + 1 .. ',' .. edit.again)
end
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {new and 'begun' or 'again'}
