-- Removes the newest nodes of a branch that nothing else needs, to make room.
-- KEYS  the data keys of the session in the order of SessionKeys.data, then the tomb
-- ARGV  1 JSON object: branch (its name, or "" for nodes that are of none), to (node that becomes its head, or "":
--         the branch goes too), log, subtasks, marks (how many there were when it was looked who needs the nodes)
--       2… ids of the nodes, each one's parent behind it
-- Returns how many bytes were freed, or -1 where something has changed: look again.
--
-- It is maintenance and no activity: nothing lives longer for it.

local meta, nodes, bodies, branches, tips = KEYS[1], KEYS[2], KEYS[3], KEYS[5], KEYS[6]
local subtasks, marks, log, named = KEYS[7], KEYS[9], KEYS[13], KEYS[14]
local edit = cjson.decode(ARGV[1])
if redis.call('EXISTS', KEYS[#KEYS]) == 1 or redis.call('EXISTS', meta) == 0 then return -1 end
-- Who commits a node, or names one, leaves a trace in these.
if redis.call('LLEN', log) ~= edit.log or redis.call('HLEN', subtasks) ~= edit.subtasks then return -1 end
if redis.call('ZCARD', marks) ~= edit.marks then return -1 end

local record = edit.branch ~= '' and redis.call('HGET', branches, edit.branch)
if edit.branch ~= '' then
  if not record or string.sub(record, 1, 32) ~= ARGV[2] then return -1 end
  if redis.call('HGET', meta, 'cur') == edit.branch then return -1 end
end
local doomed = {}
for i = 2, #ARGV do
  doomed[ARGV[i]] = true
  for _, tip in ipairs(redis.call('ZRANGEBYLEX', tips, '[' .. ARGV[i] .. '/', '(' .. ARGV[i] .. '0')) do
    if string.sub(tip, 34) ~= edit.branch then return -1 end
  end
end
for _, snapshot in ipairs(redis.call('HVALS', named)) do
  if doomed[string.match(snapshot, '"node":"(%x+)"') or ''] then return -1 end
end

local freed = 0
for i = 2, #ARGV do
  freed = freed + redis.call('HSTRLEN', nodes, ARGV[i]) + redis.call('HSTRLEN', bodies, ARGV[i])
  redis.call('HDEL', nodes, ARGV[i])
  redis.call('HDEL', bodies, ARGV[i])
end
if record then
  redis.call('ZREM', tips, ARGV[2] .. '/' .. edit.branch)
  if edit.to == '' then
    redis.call('HDEL', branches, edit.branch)
  else
    redis.call('HSET', branches, edit.branch, edit.to .. string.sub(record, 33))
    redis.call('ZADD', tips, 0, edit.to .. '/' .. edit.branch)
  end
end
local total = math.max(0, tonumber(redis.call('HGET', meta, 'total') or '0') - freed)
redis.call('HSET', meta, 'total', total, 'stored', redis.call('HLEN', nodes) .. ':' .. redis.call('HLEN', bodies))
return freed
