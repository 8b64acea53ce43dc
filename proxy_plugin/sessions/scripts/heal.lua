-- Puts back nodes of a path that were damaged or lost, under branches and everything else as they are.
-- KEYS  1 meta  2 nodes  3 bodies  4 leads  5 tomb
-- ARGV  1 session TTL, ms  2 "1": the path is whole with this  3 id of a lead, or ""  4 the lead
--       5… id, head, body of each node; "" for what of it is whole
-- Returns 1, or 0 where the session is gone.

local meta, nodes, bodies, leads, tomb = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if redis.call('EXISTS', tomb) == 1 or redis.call('EXISTS', meta) == 0 then return 0 end
if ARGV[3] ~= '' then redis.call('HSET', leads, ARGV[3], ARGV[4]) end
for i = 5, #ARGV, 3 do
  if ARGV[i + 1] ~= '' then redis.call('HSET', nodes, ARGV[i], ARGV[i + 1]) end
  if ARGV[i + 2] ~= '' then redis.call('HSET', bodies, ARGV[i], ARGV[i + 2]) end
end
if ARGV[2] == '1' then
  redis.call('HDEL', meta, 'damaged')
  redis.call('HSET', meta, 'stored', redis.call('HLEN', nodes) .. ':' .. redis.call('HLEN', bodies))
end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return 1
