-- Gives a worker's lease back: it stopped cleanly, or its sessions are recovered.
-- KEYS  1 workers  2 recovery
-- ARGV  1 worker  2 "clean" | "recovered"
-- Returns 1, or 0 where there was no such lease.

if ARGV[2] == 'recovered' then return redis.call('ZREM', KEYS[1], ARGV[1] .. ' lost') end
local time = redis.call('TIME')
local held = redis.call('ZREM', KEYS[1], ARGV[1])
if held == 1 then redis.call('HSET', KEYS[2], 'last_clean_stop', time[1] * 1000 + math.floor(time[2] / 1000)) end
return held
