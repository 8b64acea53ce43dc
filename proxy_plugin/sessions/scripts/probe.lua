-- How much of a path is stored.
-- KEYS  1 nodes
-- ARGV  node ids, root first
-- Returns how many of them, from the root on, are there.

for i = 1, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 then return i - 1 end
end
return #ARGV
