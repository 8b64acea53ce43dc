-- Takes sessions that are gone out of a tenant's index, on behalf of whoever holds the lock.
-- KEYS  1 index  2 the highest fence that it was swept with
-- ARGV  1 fence  2 how long it is remembered, ms  3… session id, its last activity as it was read
-- Returns how many were taken out, or -1 where the fence is stale: the lock has passed on.
--
-- A session that was active since it was read stays.

local highest = tonumber(redis.call('GET', KEYS[2]) or '0')
if tonumber(ARGV[1]) < highest then return -1 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local removed = 0
for i = 3, #ARGV, 2 do
  local last = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if last and tonumber(last) <= tonumber(ARGV[i + 1]) then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return removed
