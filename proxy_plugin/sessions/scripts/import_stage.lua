-- Brings a piece of an imported session in, under keys that nobody reads.
-- KEYS  1 the import's mark, there as long as it runs  2… keys of the parts
-- ARGV  1 how long they are kept, ms  2… of each entry: key (number among KEYS), kind ("hash" | "zset" | "list"),
--       place (field, score or index), value
-- Returns 1. A list's entry counts once, however often it is brought.

local touched = {[1] = true}
redis.call('SET', KEYS[1], '1')
for i = 2, #ARGV, 4 do
  local at, kind, place, value = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key = KEYS[at]
  if kind == 'hash' then
    redis.call('HSET', key, place, value)
  elseif kind == 'zset' then
    redis.call('ZADD', key, place, value)
  elseif redis.call('LLEN', key) == tonumber(place) then
    redis.call('RPUSH', key, value)
  end
  touched[at] = true
end
for at in pairs(touched) do redis.call('PEXPIRE', KEYS[at], ARGV[1]) end
return 1
