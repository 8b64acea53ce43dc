-- A path upwards, a bounded piece of it.
-- KEYS  1 nodes
-- ARGV  1 id to begin with  2 most nodes to return
-- Returns id, head, id, head, … from that node towards the root; ends at the root, at a missing or damaged
-- parent (its id is returned without a head), or at the bound.

local result, id = {}, ARGV[1]
for _ = 1, tonumber(ARGV[2]) do
  result[#result + 1] = id
  local head = redis.call('HGET', KEYS[1], id)
  if not head or #head < 107 then break end
  result[#result + 1] = head
  id = string.sub(head, 4, 35)
  if string.sub(id, 1, 1) == '-' then break end
end
return result
