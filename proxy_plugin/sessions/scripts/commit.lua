-- Stores one path of a session, whole or not at all.
--
-- KEYS  1 meta  2 nodes  3 bodies  4 leads  5 branches  6 tips  7 subtasks  8 snapshots  9 marks
--       10 agents  11 links  12 kept  13 tomb
--       in a family also: 14 count  15 first (count again where there is no first reply)  16 token
-- ARGV  1 the commit as a JSON object of strings, booleans and one list of strings:
--         now (ms), now_hex (12 digits), ttl (ms), kind ("request" | "reply")
--         base           id of the last node that is taken as stored, or ""
--         bound          the node that all of it stands on, or ""; with it, "" as the lead means that node's
--         lead, messages id of the lead or "", and how many messages it has
--         explicit, name field and id of the explicit subtask, or ""
--         mark           node after which that one would begin, or ""
--         subtask        field of the running subtask, "goes_on" for that of the bound node, or ""; with it:
--         record, before what is noted of it, and the node before it or ""
--         snapshot, expires   its automatic snapshot and when that expires (ms)
--         ended, ended_before what is noted of its end, or "", and of the end of the one before it
--         agent, switch  the agent or "", and the JSON of a switch to it without its beginning
--         continues      whether the path goes on behind its first reply
--         number         of the session in its family, "" outside of one
--         mode           "known" | "find" (the number is a guess) | "own" (it was given out to this commit)
--         first          whether there is a first reply
--         kept           what leads to this session from ids of the provider's
--         check          write nothing
--       2 the lead, "" where it is taken as stored
--       3… id, head, body of every node after the base; body "" where it is stored already (stage.lua)
-- Returns {"ok", new nodes, snapshots created, restored, branch, mark…}
--       {"at", n}      the conversation is the n-th of its family: repeat with its keys
--       {"open", n}    it is new: repeat with the keys of n, which is now its own
--       {"missing", base "1" | "0", lead "1" | "0"}   was taken as stored and is not
--       {"baseless"}   the bound node is not there
--       {"deleted"}    {"checked"}

local meta, nodes, bodies, leads, branches, tips = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local subtasks, snapshots, marks, agents, links = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local kept, tomb, count, first, token = KEYS[12], KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local commit = cjson.decode(ARGV[1])
local now, ttl, base, explicit, number = commit.now, commit.ttl, commit.base, commit.explicit, commit.number
local FIRST_NODE = 3
local MARKS_RETURNED, MARKS_KEPT, AGENTS_KEPT, TOKEN_TTL = 512, 4096, 1000, 3600000

-- Places in the head of a node, see tree.py.
local function role_of(head) return string.sub(head, 2, 2) end
local function is_side(head) return tonumber(string.sub(head, 3, 3)) >= 2 end
local function depth_of(head) return tonumber(string.sub(head, 36, 43), 16) end
local function start_of(head) return string.sub(head, 64, 75) end
local function lead_of(head) return string.sub(head, 76, 107) end
local function explicit_of(head) return string.sub(head, 108) end
local INHERIT = '............'

-- Which session of the family: the one that this request or the first reply leads to, else a new one.
if commit.mode ~= 'known' then
  local found = redis.call('GET', token) or (commit.first and redis.call('GET', first))
  if found then
    if found ~= number then return {'at', found} end
  elseif commit.bound ~= '' then
    return {'baseless'}
  else
    local taken = redis.call('EXISTS', meta, tomb) > 0
    local own = commit.mode == 'own' and number or tostring(redis.call('INCR', count))
    if own == number and taken then own = tostring(redis.call('INCR', count)) end
    redis.call('PEXPIRE', count, ttl)
    if own ~= number or base ~= '' then return {'open', own} end
  end
end

if redis.call('EXISTS', tomb) == 1 then return {'deleted'} end

local last_head = base ~= '' and redis.call('HGET', nodes, base)
local no_base = base ~= '' and not last_head
if no_base and base == commit.bound then return {'baseless'} end
local no_lead = commit.lead ~= '' and ARGV[2] == '' and redis.call('HEXISTS', leads, commit.lead) == 0
if no_base or no_lead then return {'missing', no_base and '1' or '0', no_lead and '1' or '0'} end
if commit.check then return {'checked'} end

-- The deepest node that is there already.
local last, at = base, FIRST_NODE
while at < #ARGV do
  local head = redis.call('HGET', nodes, ARGV[at])
  if not head then break end
  last, last_head, at = ARGV[at], head, at + 3
end
for i = at, #ARGV, 3 do
  if ARGV[i + 2] == '' and redis.call('HEXISTS', bodies, ARGV[i]) == 0 then return {'missing', '1', '0'} end
end

-- From here on everything is written.
if ARGV[2] ~= '' then redis.call('HSETNX', leads, commit.lead, ARGV[2]) end

local inherited = last_head and explicit_of(last_head) or ''
local from = at -- where in ARGV the explicit subtask begins
if explicit ~= '' and last_head and commit.mark ~= '' and inherited ~= explicit then
  redis.call('ZADD', marks, 'NX', now, commit.mark .. commit.name)
  redis.call('ZREMRANGEBYRANK', marks, 0, -1 - MARKS_KEPT)
  for i = at, #ARGV, 3 do
    if ARGV[i] == commit.mark then from = i + 3 end -- what comes before still belongs to the one before
  end
end

local current = redis.call('HGET', meta, 'cur')
local side
if last_head then
  side = is_side(last_head) and commit.kind == 'reply'
else
  side = current and not commit.continues
end

local new, depth = 0, last_head and depth_of(last_head) or 0
local tip = last
local start = last_head and start_of(last_head) or INHERIT
local goes_on = 'auto-' .. start
local lead = commit.bound ~= '' and commit.lead == '' and lead_of(last_head)
for i = at, #ARGV, 3 do
  local head = ARGV[i + 1]
  if start_of(head) ~= INHERIT then start = start_of(head) end
  local flags = side and tostring(tonumber(string.sub(head, 3, 3)) + 2) or string.sub(head, 3, 3)
  head = string.sub(head, 1, 2) .. flags .. string.sub(head, 4, 63) .. start .. (lead or lead_of(head))
  head = head .. (explicit ~= '' and i >= from and explicit or inherited)
  redis.call('HSET', nodes, ARGV[i], head)
  if ARGV[i + 2] ~= '' then redis.call('HSET', bodies, ARGV[i], ARGV[i + 2]) end
  tip, new, depth = ARGV[i], new + 1, depth + 1
end

-- The branch whose head the new nodes stand on grows; anywhere else they are a branch of their own.
local branch = current
if new > 0 then
  local record
  branch = false
  if last_head then
    record = current and redis.call('HGET', branches, current)
    branch = record and string.sub(record, 1, 32) == last and current or redis.call('HGET', tips, last)
    record = branch and redis.call('HGET', branches, branch)
  end
  if record then
    if redis.call('HGET', tips, last) == branch then redis.call('HDEL', tips, last) end
    record = tip .. string.sub(record, 33, 44) .. commit.now_hex
  else
    repeat
      local n = redis.call('HINCRBY', meta, 'branches', 1)
      branch = n == 1 and 'main' or 'branch-' .. n
    until redis.call('HEXISTS', branches, branch) == 0
    record = tip .. commit.now_hex .. commit.now_hex
  end
  redis.call('HSET', branches, branch, record)
  redis.call('HSET', tips, tip, branch)
  if not side then redis.call('HSET', meta, 'cur', branch, 'head', tip, 'messages', depth + tonumber(commit.messages)) end
end

redis.call('HSETNX', meta, 'created', now)
if tonumber(redis.call('HGET', meta, 'last') or '0') < tonumber(now) then redis.call('HSET', meta, 'last', now) end

if commit.kind == 'request' then
  redis.call('HINCRBY', meta, 'requests', 1)
  local agent = redis.call('HGET', meta, 'agent')
  if commit.agent ~= '' and agent ~= commit.agent then
    local previous = agent and cjson.encode(agent) or 'null'
    redis.call('RPUSH', agents, '{"from":' .. previous .. ',' .. commit.switch)
    redis.call('LTRIM', agents, -AGENTS_KEPT, -1)
    redis.call('HSET', meta, 'agent', commit.agent)
  end
end

-- The running subtask begins once, with a snapshot, and ends once. Where the reply that ended the one before
-- it never arrived, this path shows it.
local created, restored = 0, 0
local field = commit.subtask
if field == 'goes_on' then field = redis.call('HEXISTS', subtasks, goes_on) == 1 and goes_on or '' end
if field ~= '' then
  if commit.record and redis.call('HSETNX', subtasks, field, commit.record) == 1 then
    redis.call('ZREMRANGEBYSCORE', snapshots, '-inf', now)
    redis.call('ZADD', snapshots, commit.expires, commit.snapshot)
    redis.call('HINCRBY', meta, 'subtasks', 1)
    created = 1
    local head = commit.before ~= '' and redis.call('HGET', nodes, commit.before)
    if head and role_of(head) == 'a' then
      local before = explicit_of(head)
      if before == '' then before = 'auto-' .. start_of(head) end
      if before ~= field and redis.call('HEXISTS', subtasks, before) == 1 then
        restored = redis.call('HSETNX', subtasks, before .. ':end', commit.ended_before)
      end
    end
  end
  if commit.ended ~= '' then restored = restored + redis.call('HSETNX', subtasks, field .. ':end', commit.ended) end
end

if number ~= '' then
  if commit.mode ~= 'known' then
    redis.call('SET', token, number, 'PX', math.min(tonumber(ttl), TOKEN_TTL))
    redis.call('SADD', links, token)
  end
  if commit.first then
    -- Whoever got this first reply last goes on under it: an older conversation alike is most likely over.
    if commit.continues then redis.call('SET', first, number, 'NX') else redis.call('SET', first, number) end
    if redis.call('GET', first) == number then
      redis.call('PEXPIRE', first, ttl)
      redis.call('SADD', links, first)
    end
  end
  redis.call('PEXPIRE', count, ttl)
end
for _, under in ipairs(commit.kept) do redis.call('SADD', kept, under) end
for i = 1, 12 do redis.call('PEXPIRE', KEYS[i], ttl) end

local result = {'ok', tostring(new), tostring(created), tostring(restored), branch or ''}
for _, member in ipairs(redis.call('ZREVRANGE', marks, 0, MARKS_RETURNED - 1)) do
  result[#result + 1] = string.sub(member, 1, 32)
end
return result
