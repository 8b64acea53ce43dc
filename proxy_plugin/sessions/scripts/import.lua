-- Puts an imported session in its place, whole or not at all.
-- KEYS  1 the import's mark  2 tomb  3 links  then as many keys of the session as of the import, in one order,
--       the session's meta first; in a family also: count, then `first` keys
-- ARGV  1 session TTL, ms  2 number of parts  3 "1": replace a session that is there
--       4 number of the session in its family, "" outside of one  5 how long the mark is kept then, ms
-- Returns 1, 0 where the session is there already, or -1 where the import was given up for too long.
--
-- A deletion a moment ago does not stand in the way. What leads to the session from outside stays.

local mark, tomb, links = KEYS[1], KEYS[2], KEYS[3]
local ttl, parts, number = ARGV[1], tonumber(ARGV[2]), ARGV[4]

local state = redis.call('GET', mark)
if state == 'done' then return 1 end
if not state then return -1 end
if redis.call('EXISTS', KEYS[4]) == 1 and ARGV[3] ~= '1' then return 0 end

redis.call('UNLINK', tomb)
for i = 4, 3 + parts do
  redis.call('UNLINK', KEYS[i])
  if redis.call('EXISTS', KEYS[i + parts]) == 1 then
    redis.call('RENAME', KEYS[i + parts], KEYS[i])
    redis.call('PEXPIRE', KEYS[i], ttl)
  end
end
if number ~= '' then
  local count = KEYS[4 + 2 * parts]
  if tonumber(redis.call('GET', count) or '0') < tonumber(number) then redis.call('SET', count, number) end
  redis.call('PEXPIRE', count, ttl)
  for i = 5 + 2 * parts, #KEYS do
    redis.call('SET', KEYS[i], number, 'NX')
    if redis.call('GET', KEYS[i]) == number then
      redis.call('PEXPIRE', KEYS[i], ttl)
      redis.call('SADD', links, KEYS[i])
    end
  end
  redis.call('PEXPIRE', links, ttl)
end
redis.call('SET', mark, 'done', 'PX', ARGV[5])
return 1
