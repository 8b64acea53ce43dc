-- Ends the calls of a session that a lost worker was waiting for. A subtask that was running in one is pending
-- again, or failed for good after its last attempt; one that another worker's call followed is running in its next
-- attempt already. No key is made that was not there.
-- KEYS  1 meta  2 subtasks  3 flights
-- ARGV  1 worker  2 now, ms  3 most attempts  4 what is noted as the reason
-- Returns {calls ended, since when the newest was under way (ms), state…} with the new state of each such subtask.

local meta, subtasks, flights = KEYS[1], KEYS[2], KEYS[3]
local now, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local noted = redis.call('HGETALL', flights)
local calls, newest, followed, order = 0, 0, {}, {}
for i = 1, #noted, 2 do
  local worker, since, after, field = string.match(noted[i + 1], '^(%x+) (%d+) ([01]) (.*)$')
  if worker == ARGV[1] then
    redis.call('HDEL', flights, noted[i])
    calls, newest = calls + 1, math.max(newest, tonumber(since))
    if field ~= '' and followed[field] == nil then order[#order + 1] = field end
    followed[field] = followed[field] or after == '1'
  end
end

local function decoded(text)
  local fine, value = pcall(cjson.decode, text or '')
  return fine and type(value) == 'table' and value or nil
end

local result, last = {tostring(calls), tostring(newest)}, nil
for _, field in ipairs(order) do
  local began = decoded(redis.call('HGET', subtasks, field))
  local is = decoded(redis.call('HGET', subtasks, field .. ':end')) or {state = 'in_progress'}
  if began and is.state == 'in_progress' then
    local attempts = is.attempts or 1
    is.error = ARGV[4]
    if followed[field] then
      is.attempts = attempts + 1
    else
      is.state, is.attempts, is.ended = attempts < most and 'pending' or 'failed', attempts, now
    end
    redis.call('HSET', subtasks, field .. ':end', cjson.encode(is))
    result[#result + 1], last = is.state, began.id
  end
end
if calls > 0 and redis.call('EXISTS', meta) == 1 then
  redis.call('HSET', meta, 'interrupted', cjson.encode({at = now, calls = calls, subtask = last}))
end
return result
