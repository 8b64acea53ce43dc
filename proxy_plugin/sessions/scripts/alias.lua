-- Sets or frees an alias of a tenant, if it is still what the caller has seen.
-- KEYS  1 aliases of the tenant: alias -> session id
-- ARGV  1 alias  2 session id that it may lead to now, or ""  3 session id that it shall lead to, "" for none  4 TTL, ms
-- Returns 1, or 0 where it leads to another session.

local leads_to = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if leads_to ~= ARGV[2] and leads_to ~= ARGV[3] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
