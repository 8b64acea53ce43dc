-- Notes what came with one request and what left, once, and lets go of the oldest notes.
-- KEYS  1 meta  2 requests  3 tomb
-- ARGV  1 token of the request, "" to note nothing  2 TTL, ms  3 how many records are kept, 0: any
--       4 bytes that the session may have with them, 0: any  5 field of what the new steps stand on, or ""
--       6 field and 7 value of the settings it was decided by, "" where they are taken as stored
--       8 the record, see requests.py  9… field, value of each new step of the list as it came, each one behind the other
-- Returns the number of the record; 0 where the session is gone, has no room for it, or nothing was to be noted;
--       -1 where what was taken as stored is not there.
--
-- A step is needed by the steps behind it and by the records that end with it, rules by the records. Whatever is new
-- is needed once; "c:<field>" says by how many more. What is needed no more goes, and so may the step before it.

local meta, requests, tomb = KEYS[1], KEYS[2], KEYS[3]
local token, keep, most = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local FORGOTTEN_AT_ONCE, LOOKED_BACK, MOST_NUMBERED = 100, 10000, 2^48
if redis.call('EXISTS', tomb) == 1 or redis.call('EXISTS', meta) == 0 then return 0 end

-- Nothing where that is damaged.
local function number_in(field, most)
  local value = tonumber(redis.call('HGET', requests, field) or '')
  return value and value >= 1 and value <= most and math.floor(value) or nil
end

local last = number_in('n', MOST_NUMBERED) or 0
local oldest = number_in('o', last + 1)
if not oldest then
  if last > 0 then redis.call('HSET', requests, 'u', '1') end
  oldest = math.max(1, last - LOOKED_BACK)
end
local counted = redis.call('HEXISTS', requests, 'u') == 0
local held = tonumber(redis.call('HGET', meta, 'total') or '') or 0
local added = 0

local function put(field, value)
  redis.call('HSET', requests, field, value)
  added = added + #field + #value
end

local function remove(field)
  local size = #field + redis.call('HSTRLEN', requests, field)
  added = added - size * redis.call('HDEL', requests, field)
end

local function take(field) redis.call('HINCRBY', requests, 'c:' .. field, 1) end

local function let_go(field)
  while field do
    local more = redis.call('HGET', requests, 'c:' .. field)
    if more then
      if tonumber(more) > 1 then redis.call('HINCRBY', requests, 'c:' .. field, -1)
      else redis.call('HDEL', requests, 'c:' .. field) end
      return
    end
    local value = redis.call('HGET', requests, field)
    if not value then return end
    remove(field)
    local before = string.sub(field, 1, 2) == 'w:' and string.sub(value, 1, 16) or '-'
    field = string.sub(before, 1, 1) ~= '-' and 'w:' .. before
  end
end

local function forget(number)
  local record = redis.call('HGET', requests, 'r:' .. number)
  if not record then return end
  remove('r:' .. number)
  remove('t:' .. string.sub(record, 1, 16))
  if not counted or string.sub(record, 17, 17) ~= '+' then return end
  let_go('w:' .. string.sub(record, 18, 33))
  let_go('s:' .. string.sub(record, 34, 49))
end

local number = 0
if token ~= '' then
  local noted = redis.call('HGET', requests, 't:' .. token)
  if noted then return tonumber(noted) end
  if ARGV[5] ~= '' and redis.call('HEXISTS', requests, ARGV[5]) == 0 then return -1 end
  local ruled = redis.call('HEXISTS', requests, ARGV[6]) == 1
  if not ruled and ARGV[7] == '' then return -1 end

  number = last + 1
  if ruled then take(ARGV[6]) else put(ARGV[6], ARGV[7]) end
  local before, fresh = ARGV[5], false -- the last step, and whether it is new and nothing needs it yet
  for i = 9, #ARGV, 2 do
    if redis.call('HEXISTS', requests, ARGV[i]) == 1 then
      fresh = false
    else
      if before ~= '' and not fresh then take(before) end
      put(ARGV[i], ARGV[i + 1])
      fresh = true
    end
    before = ARGV[i]
  end
  if before ~= '' and not fresh then take(before) end
  put('r:' .. number, ARGV[8])
  put('t:' .. token, number .. '')
  redis.call('HSET', requests, 'n', number)
  redis.call('PEXPIRE', requests, ARGV[2])
  last = number
end

for _ = 1, FORGOTTEN_AT_ONCE do
  local many = keep > 0 and oldest <= last - keep
  local much = most > 0 and held + added > most
  if oldest > last or not (many or much) then break end
  forget(oldest)
  oldest = oldest + 1
end
if last > 0 then redis.call('HSET', requests, 'o', oldest) end
if counted and added ~= 0 then redis.call('HSET', meta, 'total', math.max(0, held + added)) end
return oldest <= number and number or 0
