-- Removes a session and keeps late commits out for a while.
-- KEYS  1 tomb  2 links  3 meta  4… the session's other keys, then the links
-- ARGV  1 how long commits are refused, ms  2 number of data keys among KEYS[3…]
--       3 only where the session was not used since this time (ms); "" in any case
-- Returns 1, 0 where there was nothing, or -1 where a link was added meanwhile: repeat.
--
-- Links stay as long as the tomb: without them a late reply would open a new session.

local data = tonumber(ARGV[2])
if redis.call('SCARD', KEYS[2]) ~= #KEYS - 2 - data then return -1 end
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
if ARGV[3] ~= '' and tonumber(redis.call('HGET', KEYS[3], 'last') or '0') >= tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
redis.call('UNLINK', KEYS[2])
for i = 3, 2 + data do redis.call('UNLINK', KEYS[i]) end
for i = 3 + data, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return 1
