-- Keeps a worker's lease, and claims the leases that ran out: each is claimed by one worker, and counted once.
-- KEYS  1 workers  2 recovery
-- ARGV  1 worker  2 "start" | "again" (it has none yet; "again": its last one was claimed) | "held"
--       3 length of a lease, ms  4 "1" where others may be judged  5 how long the two keys are kept, ms
--       6… lost workers that it is recovering: the claims are renewed
-- Returns {"held", ms until the next lease runs out, or "", claimed worker…}, or {"lost"} where the worker's own
-- lease was claimed.
--
-- The clock is the server's. A claimed lease stands as "<worker> lost" until its sessions are recovered, and can be
-- claimed again if whoever claimed it is lost too.

local workers, recovery, worker, lease = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[3])
local LOST, MOST = ' lost', 16
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if ARGV[2] == 'held' and not redis.call('ZSCORE', workers, worker) then return {'lost'} end
redis.call('ZADD', workers, now + lease, worker)
for i = 6, #ARGV do redis.call('ZADD', workers, 'XX', now + lease, ARGV[i] .. LOST) end
if ARGV[2] == 'start' then redis.call('HSET', recovery, 'last_start', now) end

local result = {'held', ''}
if ARGV[4] == '1' then
  for _, over in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', now, 'LIMIT', 0, MOST)) do
    if string.sub(over, -#LOST) ~= LOST then
      redis.call('ZREM', workers, over)
      redis.call('HINCRBY', recovery, 'unclean_stops', 1)
      redis.call('HSET', recovery, 'last_unclean_stop', now)
      over = over .. LOST
    end
    redis.call('ZADD', workers, now + lease, over)
    result[#result + 1] = string.sub(over, 1, -1 - #LOST)
  end
  local next = redis.call('ZRANGE', workers, 0, 0, 'WITHSCORES')
  result[2] = tostring(math.max(0, tonumber(next[2]) - now))
end
redis.call('PEXPIRE', workers, ARGV[5])
redis.call('PEXPIRE', recovery, ARGV[5])
return result
