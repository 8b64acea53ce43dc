-- Stores one path of a session, whole or not at all.
--
-- KEYS  1 meta  2 nodes  3 bodies  4 leads  5 branches  6 tips  7 subtasks  8 snapshots  9 marks
--       10 agents  11 links  12 kept  13 log  14 named  15 profile  16 flights  17 requests  18 tomb
--       in a family also: 19 count  20 first (count again where there is no first reply)  21 token
-- ARGV  1 the commit as a JSON object of strings, booleans and one list of strings:
--         now (ms), now_hex (12 digits), ttl (ms), kind ("request" | "reply")
--         base           id of the last node that is taken as stored, or ""
--         bound          the node that all of it stands on, or ""; with it, "" as the lead means that node's
--         lead, messages id of the lead or "", and how many messages it has
--         size           bytes of the path, without what comes before the bound node
--         explicit, name field and id of the explicit subtask, or ""
--         mark           node after which that one would begin, or ""
--         subtask        field of the running subtask, "goes_on" for that of the bound node, or ""; with it:
--         record, before what is noted of it, and the node before it or ""
--         snapshot, named, expires   id of its automatic snapshot, the JSON of that without its beginning,
--                        and when it expires (ms)
--         ended, ended_before what is noted of its end, or "", and of the end of the one before it
--         again, attempts     what is noted of a further attempt at it, without its beginning; how many there may be
--         agent, switch  the agent or "", and the JSON of a switch to it without its beginning
--         continues      whether the path goes on behind its first reply
--         number         of the session in its family, "" outside of one
--         mode           "known" | "find" (the number is a guess) | "own" (it was given out to this commit)
--         first          whether there is a first reply
--         kept           what leads to this session from ids of the provider's
--         worker, call   the worker that waits for the request's call, or "", and the token of the call
--         landed         tokens of calls that are over
--         limits         nothing, or bytes and messages that the session may hold (0: any), and whether its
--                        tenant is full already;  adding, added: messages that come, and their bytes, for a check
--         age, opens     nothing, or how old (ms) a session may be when a subtask begins that it need not be reset
--                        at, and the first node of the running subtask
--         check          write nothing
--       2 the lead, "" where it is taken as stored
--       3… id, head, body of every node after the base; body "" where it is stored already (stage.lua)
-- Returns {"ok", new nodes, snapshots created, ran, branch, subtask, bytes stored, resets, mark…}; ran: how long (ms) each
--       subtask took that ended with it, which restored its snapshot, blanks between them; subtask: "" or,
--       of the one that the client names, "again" (a further attempt began) | "refused" (it is over, and the record
--       unchanged); resets: ids of the nodes at which the session was reset for its age, one behind the other
--       {"full", "session_full" | "tenant_full" | "newer_layout", messages and bytes that came, resets, mark…}   nothing is written
--       {"at", n}      the conversation is the n-th of its family: repeat with its keys
--       {"open", n}    it is new: repeat with the keys of n, which is now its own
--       {"missing", base "1" | "0", lead "1" | "0"}   was taken as stored and is not
--       {"baseless"}   the bound node is not there
--       {"damaged"}    nodes of the session are damaged or lost: heal the path (heal.lua) and repeat
--       {"deleted"}    {"checked"}
--
-- The marker of a call under way: worker, since when (ms), "1" where it was followed by another one of its subtask
-- on another worker, field of the subtask or nothing; blanks between them.

local meta, nodes, bodies, leads, branches, tips = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local subtasks, snapshots, marks, agents, links = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local kept, log, named, flights, tomb = KEYS[12], KEYS[13], KEYS[14], KEYS[16], KEYS[18]
local count, first, token = KEYS[19], KEYS[20], KEYS[21]
local commit = cjson.decode(ARGV[1])
local now, ttl, base, explicit, number = commit.now, commit.ttl, commit.base, commit.explicit, commit.number
local FIRST_NODE = 3
local LAYOUT = 1 -- of nodes and bodies, the newest that is known here
local MARKS_RETURNED, MARKS_KEPT, AGENTS_KEPT, EXPIRED_REMOVED, TOKEN_TTL = 512, 4096, 1000, 100, 3600000
local RESETS_KEPT = 128 -- the newest one on a path is what counts
local FLIGHTS_KEPT = 512 -- more than that are none that still go on

-- Places in the head of a node, see tree.py.
local function role_of(head) return string.sub(head, 2, 2) end
local function is_whole(head) return #head >= 107 and string.find(head, '^1.%d................................%x') end
local function is_side(head) return tonumber(string.sub(head, 3, 3)) >= 2 end
local function depth_of(head) return tonumber(string.sub(head, 36, 43), 16) or 0 end
local function size_of(head) return tonumber(string.sub(head, 56, 63), 16) or 0 end
local function start_of(head) return string.sub(head, 64, 75) end
local function lead_of(head) return string.sub(head, 76, 107) end
local function explicit_of(head) return string.sub(head, 108) end
local INHERIT, NO_ID = '............', string.rep('-', 32)

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

local function told_of_old(result)
  result[#result + 1] = redis.call('HGET', meta, 'resets') or ''
  for _, member in ipairs(redis.call('ZREVRANGE', marks, 0, MARKS_RETURNED - 1)) do
    result[#result + 1] = string.sub(member, 1, 32)
  end
  return result
end

-- A newer version of the plugin lays this session's nodes or bodies out as is not known here: they stay as they are.
if (tonumber(redis.call('HGET', meta, 'layout') or '') or LAYOUT) > LAYOUT then
  return told_of_old({'full', 'newer_layout', '0', '0'})
end

local last_head = base ~= '' and redis.call('HGET', nodes, base)
if last_head and base == commit.bound and not is_whole(last_head) then return {'baseless'} end

-- Whether a read met damage, or nodes or bodies are gone; then the whole path is looked at before anything else.
local function is_damaged()
  if last_head and not is_whole(last_head) then return true end
  local noted = redis.call('HMGET', meta, 'damaged', 'stored')
  local of_nodes, of_bodies = string.match(noted[2] or '', '^(%d+):(%d+)$')
  return noted[1] or of_nodes and (redis.call('HLEN', nodes) < tonumber(of_nodes)
    or redis.call('HLEN', bodies) < tonumber(of_bodies))
end
if is_damaged() then return {'damaged'} end
local no_base = base ~= '' and not last_head
if no_base and base == commit.bound then return {'baseless'} end
local no_lead = commit.lead ~= '' and ARGV[2] == '' and redis.call('HEXISTS', leads, commit.lead) == 0
if no_base or no_lead then return {'missing', no_base and '1' or '0', no_lead and '1' or '0'} end

-- What adds nothing is never too much.
local function too_full(adding, added)
  local limits = commit.limits
  if not limits or adding == 0 then return end
  if limits.tenant then return told_of_old({'full', 'tenant_full', tostring(adding), tostring(added)}) end
  local total = tonumber(redis.call('HGET', meta, 'total') or '') or 0
  local bytes = limits.bytes > 0 and total + added > limits.bytes
  local messages = limits.messages > 0 and redis.call('HLEN', nodes) + adding > limits.messages
  return (bytes or messages) and told_of_old({'full', 'session_full', tostring(adding), tostring(added)})
end

if commit.check then return too_full(commit.adding, commit.added) or {'checked'} end

-- The deepest node that is there already.
local last, at = base, FIRST_NODE
while at < #ARGV do
  local head = redis.call('HGET', nodes, ARGV[at])
  if not head then break end
  if not is_whole(head) then return {'damaged'} end
  last, last_head, at = ARGV[at], head, at + 3
end
for i = at, #ARGV, 3 do
  if ARGV[i + 2] == '' and redis.call('HEXISTS', bodies, ARGV[i]) == 0 then return {'missing', '1', '0'} end
end
local added = 0
for i = at, #ARGV, 3 do
  added = added + #ARGV[i + 1] + (ARGV[i + 2] ~= '' and #ARGV[i + 2] or redis.call('HSTRLEN', bodies, ARGV[i]))
end
local full = too_full((#ARGV - at + 1) / 3, added)
if full then return full end

-- From here on everything is written.
if ARGV[2] ~= '' then added = added + #ARGV[2] * redis.call('HSETNX', leads, commit.lead, ARGV[2]) end

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
local record = current and redis.call('HGET', branches, current)
-- The current branch may be empty: restored to what was before the first message.
local grows = record and string.sub(record, 1, 32) == (last ~= '' and last or NO_ID)
local side
if last_head then
  side = is_side(last_head) and commit.kind == 'reply' and not grows
else
  side = current and not grows and not commit.continues
end

local new, depth, size = 0, last_head and depth_of(last_head) or 0, 0
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
  added = added + #head - #ARGV[i + 1]
  redis.call('HSET', nodes, ARGV[i], head)
  redis.call('RPUSH', log, ARGV[i])
  if ARGV[i + 2] ~= '' then redis.call('HSET', bodies, ARGV[i], ARGV[i + 2]) end
  tip, new, depth, size = ARGV[i], new + 1, depth + 1, size + size_of(head)
end

-- Nothing where that is damaged: those that lead in a circle must not keep the server busy for ever.
local function parent_of(head)
  local parent = redis.call('HGET', nodes, string.sub(head, 4, 35))
  return parent and is_whole(parent) and depth_of(parent) < depth_of(head) and parent
end

local function is_above_last(id)
  if id == NO_ID then return true end
  local head, up, above = redis.call('HGET', nodes, id), last, last_head
  while head and above and depth_of(above) > depth_of(head) do
    up = string.sub(above, 4, 35)
    above = parent_of(above)
  end
  return up == id
end

-- The branch whose head the new nodes stand on grows; anywhere else they are a branch of their own. After a step
-- back (a restore, a switch) what is there already and is said again goes forward on the current branch.
local branch = current
local forward = not grows and not side and record and last_head and redis.call('HEXISTS', meta, 'back') == 1
  and is_above_last(string.sub(record, 1, 32))
if new > 0 and not grows then
  local tip_of = last_head and redis.call('ZRANGEBYLEX', tips, '[' .. last .. '/', '(' .. last .. '0', 'LIMIT', 0, 1)[1]
  if tip_of or not forward then
    branch = tip_of and string.sub(tip_of, 34)
    record = branch and redis.call('HGET', branches, branch)
  end
end
if new > 0 or forward then
  if record then
    redis.call('ZREM', tips, string.sub(record, 1, 32) .. '/' .. branch)
    record = tip .. string.sub(record, 33, 44) .. commit.now_hex
  else
    repeat
      local n = redis.call('HINCRBY', meta, 'branches', 1)
      branch = n == 1 and 'main' or 'branch-' .. n
    until redis.call('HEXISTS', branches, branch) == 0
    record = tip .. commit.now_hex .. commit.now_hex
  end
  redis.call('HSET', branches, branch, record)
  redis.call('ZADD', tips, 0, tip .. '/' .. branch)
  if not side then
    if grows then
      size = size + tonumber(redis.call('HGET', meta, 'bytes') or '0')
    elseif commit.bound == '' then
      size = tonumber(commit.size)
    else
      local head = last_head
      while head do
        size, head = size + size_of(head), parent_of(head)
      end
    end
    redis.call('HSET', meta, 'cur', branch, 'head', tip, 'bytes', size, 'messages', depth + tonumber(commit.messages))
    if new > 0 then redis.call('HDEL', meta, 'back') end
  end
end

if added > 0 then redis.call('HINCRBY', meta, 'total', added) end
if new > 0 then redis.call('HSET', meta, 'stored', redis.call('HLEN', nodes) .. ':' .. redis.call('HLEN', bodies)) end
redis.call('HSETNX', meta, 'created', now)
if (tonumber(redis.call('HGET', meta, 'last') or '') or 0) < tonumber(now) then redis.call('HSET', meta, 'last', now) end

-- Decided once, when the subtask's first message is stored.
if commit.age then
  local since = tonumber(redis.call('HGET', meta, 'reset') or redis.call('HGET', meta, 'created'))
  for i = at, #ARGV, 3 do
    if ARGV[i] == commit.opens and tonumber(now) - since > commit.age then
      local resets = (redis.call('HGET', meta, 'resets') or '') .. commit.opens
      redis.call('HSET', meta, 'reset', now, 'resets', string.sub(resets, -32 * RESETS_KEPT))
    end
  end
end

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

-- The running subtask begins with a snapshot, and ends once. Where the reply that ended the one before it never
-- arrived, this path shows it. What failed, was rolled back or interrupted begins again with the next request.
local function decoded(text)
  local fine, value = pcall(cjson.decode, text)
  return fine and type(value) == 'table' and value or nil
end

local ran = {}
local function ends(subtask, ended)
  local stored = redis.call('HGET', subtasks, subtask .. ':end')
  local was = stored and decoded(stored)
  if was and was.state ~= 'in_progress' and was.state ~= 'pending' then return end
  local is = cjson.decode(ended)
  if was then is.attempts, is.started, is.given = was.attempts, was.started, was.given end
  redis.call('HSET', subtasks, subtask .. ':end', cjson.encode(is))
  local began = is.started or (decoded(redis.call('HGET', subtasks, subtask) or '') or {}).started or now
  ran[#ran + 1] = string.format('%.0f', math.max(0, tonumber(now) - tonumber(began)))
end

local created, told = 0, ''
local field = commit.subtask
if field == 'goes_on' then field = redis.call('HEXISTS', subtasks, goes_on) == 1 and goes_on or '' end
if field ~= '' then
  if commit.record and redis.call('HSETNX', subtasks, field, commit.record) == 1 then
    for _, over in ipairs(redis.call('ZRANGEBYSCORE', snapshots, '-inf', now, 'LIMIT', 0, EXPIRED_REMOVED)) do
      redis.call('ZREM', snapshots, over)
      redis.call('HDEL', named, over)
    end
    local title = redis.call('HGET', meta, 'title')
    redis.call('ZADD', snapshots, commit.expires, commit.snapshot)
    redis.call('HSET', named, commit.snapshot, '{"title":' .. (title and cjson.encode(title) or 'null') .. ',' .. commit.named)
    redis.call('HINCRBY', meta, 'subtasks', 1)
    created = 1
    local head = commit.before ~= '' and redis.call('HGET', nodes, commit.before)
    if head and role_of(head) == 'a' then
      local before = explicit_of(head)
      if before == '' then before = 'auto-' .. start_of(head) end
      if before ~= field and redis.call('HEXISTS', subtasks, before) == 1 then
        ends(before, commit.ended_before)
      end
    end
  elseif commit.kind == 'request' then
    local stored = redis.call('HGET', subtasks, field .. ':end')
    local was = stored and decoded(stored) or {state = 'in_progress'}
    local attempts = was.attempts or 1
    if was.state == 'completed' or (was.state == 'failed' and attempts >= tonumber(commit.attempts)) then
      told = explicit ~= '' and 'refused' or ''
    elseif was.state ~= 'in_progress' then
      redis.call('HSET', subtasks, field .. ':end', '{"attempts":' .. attempts + 1 .. ',' .. commit.again)
      told = 'again'
    end
  end
  if commit.ended ~= '' then ends(field, commit.ended) end
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
-- The call of this request is noted. One that another worker makes for the
-- same subtask is followed by it: should that worker be gone, its subtask is running again.
for _, over in ipairs(commit.landed) do redis.call('HDEL', flights, over) end
if commit.worker ~= '' then
  if redis.call('HLEN', flights) >= FLIGHTS_KEPT then redis.call('UNLINK', flights) end
  local noted = field ~= '' and redis.call('HGETALL', flights) or {}
  for i = 1, #noted, 2 do
    local worker, since, of = string.match(noted[i + 1], '^(%x+) (%d+) 0 (.*)$')
    if of == field and worker ~= commit.worker then
      redis.call('HSET', flights, noted[i], worker .. ' ' .. since .. ' 1 ' .. of)
    end
  end
  redis.call('HSET', flights, commit.call, commit.worker .. ' ' .. now .. ' 0 ' .. field)
end

for _, under in ipairs(commit.kept) do redis.call('SADD', kept, under) end
for i = 1, 17 do redis.call('PEXPIRE', KEYS[i], ttl) end

return told_of_old({'ok', tostring(new), tostring(created), table.concat(ran, ' '), branch or '', told, tostring(added)})
