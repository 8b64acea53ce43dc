-- Notes that a session has damaged nodes, so that its next commit looks for them.
-- KEYS  1 meta
-- ARGV  none
-- Returns 1, or 0 where the session is gone. Its keys expire when they would have.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'damaged', '1')
return 1
