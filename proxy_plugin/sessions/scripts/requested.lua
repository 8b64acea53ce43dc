-- Notes what came with one request and what left, once.
-- KEYS  1 meta  2 requests  3 tomb
-- ARGV  1 token of the request  2 TTL, ms  3 how many records are kept  4 field of what the new steps stand on, or ""
--       5 field and 6 value of the settings it was decided by  7 the record, which begins with the token
--       8… field, value of each new step of the list as it came
-- Returns the number of the record, 0 where the session is gone, -1 where the step of 4 is not there.

local meta, requests, tomb = KEYS[1], KEYS[2], KEYS[3]
local token, keep = ARGV[1], tonumber(ARGV[3])
if redis.call('EXISTS', tomb) == 1 or redis.call('EXISTS', meta) == 0 then return 0 end
local noted = redis.call('HGET', requests, 't:' .. token)
if noted then return tonumber(noted) end
if ARGV[4] ~= '' and redis.call('HEXISTS', requests, ARGV[4]) == 0 then return -1 end
for i = 8, #ARGV, 2 do redis.call('HSETNX', requests, ARGV[i], ARGV[i + 1]) end
redis.call('HSETNX', requests, ARGV[5], ARGV[6])
local n = redis.call('HINCRBY', requests, 'n', 1)
redis.call('HSET', requests, 'r:' .. n, ARGV[7], 't:' .. token, n)
local old = 'r:' .. n - keep
local over = redis.call('HGET', requests, old)
if over then redis.call('HDEL', requests, old, 't:' .. string.sub(over, 1, #token)) end
redis.call('PEXPIRE', requests, ARGV[2])
return n
