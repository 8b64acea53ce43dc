-- Gives a lock back.
-- KEYS  1 lock
-- ARGV  1 holder
-- Returns 1, or 0 where it is not held by this one.

local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^(%S+)') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
