-- Takes a lock, or goes on holding it.
-- KEYS  1 lock  2 fence
-- ARGV  1 holder  2 how long it is held, ms  3 how long fences are remembered, ms
-- Returns the fence, a number that is higher each time the lock is taken, or 0 where another one holds it.

local held = redis.call('GET', KEYS[1])
if not held then
  local fence = redis.call('INCR', KEYS[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. fence, 'PX', ARGV[2])
  return fence
end
local holder, fence = string.match(held, '^(%S+) (%d+)$')
if holder ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return tonumber(fence)
