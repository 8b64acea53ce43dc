-- Ends a subtask, once: completed, failed or rolled back.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, now_hex, ttl (ms), subtask (its field), ended (what is noted of its end), back: "1" where
--         the node "at" ("" before the first message) becomes a new current branch; messages, bytes of the path to it
-- Returns {"ended"}, {"not", the state it is in}, {"unknown"}, or {"gone"}.

local edit = cjson.decode(ARGV[1])
local meta, branches, tips, subtasks = KEYS[1], KEYS[5], KEYS[6], KEYS[7]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

if redis.call('HEXISTS', subtasks, edit.subtask) == 0 then return {'unknown'} end
local fine, was = pcall(cjson.decode, redis.call('HGET', subtasks, edit.subtask .. ':end') or '')
if not fine or type(was) ~= 'table' or type(was.state) ~= 'string' then was = nil end
if was and was.state ~= 'in_progress' and was.state ~= 'pending' then return {'not', was.state} end
local is = cjson.decode(edit.ended)
if was then is.attempts, is.started, is.given = was.attempts, was.started, was.given end
redis.call('HSET', subtasks, edit.subtask .. ':end', cjson.encode(is))

if edit.back == '1' and redis.call('HGET', meta, 'head') ~= edit.at then
  local branch
  repeat
    local n = redis.call('HINCRBY', meta, 'branches', 1)
    branch = n == 1 and 'main' or 'branch-' .. n
  until redis.call('HEXISTS', branches, branch) == 0
  local tip = edit.at ~= '' and edit.at or string.rep('-', 32)
  redis.call('HSET', branches, branch, tip .. edit.now_hex .. edit.now_hex)
  redis.call('ZADD', tips, 0, tip .. '/' .. branch)
  redis.call('HSET', meta, 'cur', branch, 'head', edit.at, 'messages', edit.messages, 'bytes', edit.bytes, 'back', '1')
end
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ended'}
