-- Brings bodies of a large commit in beforehand. They are seen by nobody until commit.lua has written the
-- heads of their nodes.
-- KEYS  1 bodies  2 tomb
-- ARGV  1 session TTL, ms  2… id, body
-- Returns 1, or 0 where the session was just deleted.

if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
