-- Forgets records of finished subtasks, and their automatic snapshots. Their nodes stay.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 how many attempts there may be  2… field of a subtask, id of its snapshot
-- Returns how many were forgotten; one that began again meanwhile stays.
--
-- It is maintenance and no activity: nothing lives longer for it.

local subtasks, snapshots, named = KEYS[7], KEYS[8], KEYS[14]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 then return 0 end
local forgotten = 0
for i = 2, #ARGV, 2 do
  local stored = redis.call('HGET', subtasks, ARGV[i] .. ':end')
  local fine, ended = pcall(cjson.decode, stored or '{}')
  ended = fine and type(ended) == 'table' and ended or {}
  local lost = ended.state == 'failed' and (ended.attempts or 1) >= tonumber(ARGV[1])
  if ended.state == 'completed' or lost then
    forgotten = forgotten + redis.call('HDEL', subtasks, ARGV[i])
    redis.call('HDEL', subtasks, ARGV[i] .. ':end')
    redis.call('ZREM', snapshots, ARGV[i + 1])
    redis.call('HDEL', named, ARGV[i + 1])
  end
end
return forgotten
