-- Puts values in the place of others that mean the same, where those are still there.
-- KEYS  1 meta  2 a hash or list of the session
-- ARGV  1 "1": its bytes count among the session's  2… field or index, value as it was, value to be
-- Returns how many were put. No key is made, and none lives longer.

local meta, key = KEYS[1], KEYS[2]
if redis.call('EXISTS', meta) == 0 then return 0 end
local is_list = redis.call('TYPE', key).ok == 'list'
local put, grown = 0, 0
for i = 2, #ARGV, 3 do
  local place, was, is = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call(is_list and 'LINDEX' or 'HGET', key, place) == was then
    redis.call(is_list and 'LSET' or 'HSET', key, place, is)
    put, grown = put + 1, grown + #is - #was
  end
end
if ARGV[1] == '1' and grown ~= 0 then redis.call('HINCRBY', meta, 'total', grown) end
return put
