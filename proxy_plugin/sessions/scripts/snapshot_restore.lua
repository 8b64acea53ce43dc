-- Makes a new branch at a node and the current one of it. Where the current branch ends there already, nothing.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: now, now_hex, ttl (ms), seen: the current head as it was read; at: the node, "" before the first
--         message; messages, bytes of the path to it; delete: id of a snapshot to forget, or ""
--       2 head, 3 body of the node "at" where that is to be written, else ""
-- Returns {"ok", branch}, {"moved"} where the current head is another one now, or {"gone"}.

local edit, node_head, node_body = cjson.decode(ARGV[1]), ARGV[2], ARGV[3]
local meta, nodes, bodies, branches, tips = KEYS[1], KEYS[2], KEYS[3], KEYS[5], KEYS[6]
local snapshots, log, named = KEYS[8], KEYS[13], KEYS[14]
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end

local head, branch = redis.call('HGET', meta, 'head') or '', redis.call('HGET', meta, 'cur')
if head ~= edit.at then
  if head ~= edit.seen then return {'moved'} end
  if node_head ~= '' and redis.call('HSETNX', nodes, edit.at, node_head) == 1 then
    redis.call('HSET', bodies, edit.at, node_body)
    redis.call('RPUSH', log, edit.at)
  end
  repeat
    local n = redis.call('HINCRBY', meta, 'branches', 1)
    branch = n == 1 and 'main' or 'branch-' .. n
  until redis.call('HEXISTS', branches, branch) == 0
  local tip = edit.at ~= '' and edit.at or string.rep('-', 32)
  redis.call('HSET', branches, branch, tip .. edit.now_hex .. edit.now_hex)
  redis.call('ZADD', tips, 0, tip .. '/' .. branch)
  redis.call('HSET', meta, 'cur', branch, 'head', edit.at, 'messages', edit.messages, 'bytes', edit.bytes, 'back', '1')
end
if edit.delete ~= '' then
  redis.call('ZREM', snapshots, edit.delete)
  redis.call('HDEL', named, edit.delete)
end
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(edit.now) then redis.call('HSET', meta, 'last', edit.now) end
for i = 1, #KEYS - 1 do redis.call('PEXPIRE', KEYS[i], edit.ttl) end
return {'ok', branch or ''}
