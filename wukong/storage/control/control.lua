-- One request to one shard of one job, carried out as `wukong/protocol/model.py` says, which is its specification.
--
--   KEYS  records    hash: task -> packed record, see below
--         values     hash: task -> value as the client packed it, never looked into
--         active     set: tasks that are ready, claimed or unsettled, for the sweep
--         executors  hash: '' -> the job's status; nonce -> (seq, deadline); '=' nonce -> last reply
--         wide       set: waiting tasks of large in-degree; the edges of each are the set  <wide> ':' <task>
--         notice     list: a hint that the client should look
--   ARGV  request (MessagePack), time in seconds ('' is the server's), seconds until an abandoned shard expires
--
-- Records are worked on in Lua tables: those a request will need are read in one HMGET, those it changed are written in
-- one HSET at the end, so that an outcome costs no server call of its own. The first write is always an HSET or SADD: a
-- server that is out of memory refuses it, and with it the whole request, before anything has changed.

local RECORDS, VALUES, ACTIVE, EXECUTORS, WIDE, NOTICE = unpack(KEYS)
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local request, now, ttl = unpacked(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
if not now then
  local time = call('TIME')
  now = time[1] + time[2] / 1000000
end

local PROBE, ARRIVE, CLAIM, COMMIT, RENEW, SWEEP, CANCEL, RELEASE = 0, 1, 2, 3, 4, 5, 6, 7
local CLIENT = -1
local STORED, HELD = 1, 2
local OK, LOST, WRITE, HOLDING = 0, 1, 2, 3
local RUNNING, GONE, STALE = 0, 3, 4
local WAITING, READY, CLAIMED, UNSETTLED, SETTLED = 0, 1, 2, 3, 4

-- Places in a record; what follows the last one in use is not stored.
local DONE, USES, KIND, VALUE_ATTEMPT = 1, 2, 3, 4 -- winning attempt; uses of the value; where it is, and whose it is
local STATE, ATTEMPT, OWNER, SINCE, ATTEMPTS = 5, 6, 7, 8, 9 -- while active
local HOLDER, ARRIVED, PARENTS = 10, 11, 12 -- while waiting; the edges themselves follow from PARENTS on if they are few

local NARROW = 32 -- largest in-degree whose edges are kept within the record
local CHUNK = 3000 -- arguments of one call: Lua's stack ends at 8000
local NONE = {}

local op, nonce, seq, lease = request[1]
if op >= ARRIVE and op <= COMMIT or op == RELEASE then
  nonce, seq, lease = request[2], request[3], request[4]
elseif op == RENEW then
  nonce, lease = request[2], request[3]
end

-- --- records ---------------------------------------------------------------------------------------------------------

local records, was_active, changed = {}, {}, {} -- by task; `false` stands for a record about to be read
local ahead = {}
local fresh = {} -- values written by this request, `false` for those deleted

local function decode(task, packed)
  local record = packed and { unpacked(packed) } or {}
  records[task] = record
  was_active[task] = record[STATE] ~= nil
  return record
end

local function record_of(task)
  return records[task] or decode(task, call('HGET', RECORDS, task))
end

local function need(task)
  if records[task] == nil then
    records[task] = false
    ahead[#ahead + 1] = task
  end
end

local function read_ahead()
  for first = 1, #ahead, CHUNK do
    local last = math.min(first + CHUNK - 1, #ahead)
    local packed = call('HMGET', RECORDS, unpack(ahead, first, last))
    for i = first, last do
      decode(ahead[i], packed[i - first + 1])
    end
  end
end

local function call_in_chunks(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    call(command, key, unpack(arguments, first, math.min(first + CHUNK - 1, #arguments)))
  end
end

local function write_back()
  local written, values, deleted, added, removed = {}, {}, {}, {}, {}
  for task in pairs(changed) do
    local record = records[task]
    local last = record[STATE] and ATTEMPTS or VALUE_ATTEMPT
    if record[ARRIVED] then
      last = record[PARENTS] and ARRIVED + record[ARRIVED] or ARRIVED
    end
    local n = #written
    written[n + 1], written[n + 2] = task, pack(unpack(record, 1, last))
    if record[STATE] and not was_active[task] then
      added[#added + 1] = task
    elseif was_active[task] and not record[STATE] then
      removed[#removed + 1] = task
    end
  end
  for task, value in pairs(fresh) do
    if value then
      local n = #values
      values[n + 1], values[n + 2] = task, value
    else
      deleted[#deleted + 1] = task
    end
  end
  call_in_chunks('HSET', RECORDS, written)
  call_in_chunks('HSET', VALUES, values)
  call_in_chunks('HDEL', VALUES, deleted)
  call_in_chunks('SADD', ACTIVE, added)
  call_in_chunks('SREM', ACTIVE, removed)
end

-- The (task, value) of those that have one, one after the other in a flat list.
local function inputs_of(wanted)
  local found = {}
  for first = 1, #wanted, CHUNK do
    local last = math.min(first + CHUNK - 1, #wanted)
    local values = call('HMGET', VALUES, unpack(wanted, first, last))
    for i = first, last do
      local value = fresh[wanted[i]]
      if value == nil then
        value = values[i - first + 1]
      end
      if value then
        found[#found + 1], found[#found + 2] = wanted[i], value
      end
    end
  end
  return found
end

-- --- executors -------------------------------------------------------------------------------------------------------

local deadlines = {}

local function alive(name)
  local deadline = deadlines[name]
  if not deadline then
    local packed = call('HGET', EXECUTORS, name)
    deadline = packed and select(2, unpacked(packed)) or -math.huge
    deadlines[name] = deadline
  end
  return deadline >= now
end

-- --- rules, each as the model's method of the same name --------------------------------------------------------------

local notified = false

local function activate(task, record, state, attempt, owner)
  record[STATE], record[ATTEMPT], record[OWNER], record[SINCE] = state, attempt, owner, now
  changed[task] = true
end

local function deactivate(task, record)
  record[STATE], record[ATTEMPT], record[OWNER], record[SINCE] = nil, nil, nil, nil
  changed[task] = true
end

local function forget_edges(child, record)
  local arrived = record[ARRIVED]
  if arrived and record[PARENTS] then
    for i = PARENTS + arrived - 1, PARENTS, -1 do
      record[i] = nil
    end
  elseif arrived then
    call('SREM', WIDE, child)
    call('UNLINK', WIDE .. ':' .. child)
  end
  record[ARRIVED], record[HOLDER] = nil, nil
end

local function has_arrived(child, record, parent)
  local arrived = record[ARRIVED]
  if not arrived then
    return false
  end
  if not record[PARENTS] then
    return call('SISMEMBER', WIDE .. ':' .. child, parent) == 1
  end
  for i = PARENTS, PARENTS + arrived - 1 do
    if record[i] == parent then
      return true
    end
  end
  return false
end

local function edge_completes(child, record, indegree, parent)
  if indegree <= 1 then
    return true
  end
  local arrived = record[ARRIVED] or 0
  if indegree > NARROW then
    local edges = WIDE .. ':' .. child
    if call('SADD', edges, parent) == 0 then
      return false
    end
    if arrived == 0 then
      call('EXPIRE', edges, ttl)
      call('SADD', WIDE, child)
      call('EXPIRE', WIDE, ttl)
    end
  elseif has_arrived(child, record, parent) then
    return false
  else
    record[PARENTS + arrived] = parent
  end
  record[ARRIVED] = arrived + 1
  changed[child] = true
  return arrived + 1 >= indegree
end

local function holder_of(record)
  local holder = record[HOLDER]
  return holder and alive(holder) and holder or nil
end

local function may_hold(outcome)
  local task, edges, claims, hold, waiter = outcome[1], outcome[5], outcome[6], outcome[7], nil
  for i = 1, #edges do
    local child, indegree = edges[i][1], edges[i][2]
    local record = record_of(child)
    local state = record[STATE]
    if not (record[DONE] or state and record[OWNER] == nonce) then
      if child == CLIENT or state and state ~= READY then
        return WRITE
      end
      local holder = holder_of(record)
      if holder and holder ~= nonce then
        return WRITE
      end
      local missing = indegree - (record[ARRIVED] or 0)
      if not state and missing > (has_arrived(child, record, task) and 0 or 1) then
        if not hold or waiter then
          return WRITE
        end
        waiter = child
      elseif not holder then
        if claims == 0 then
          return WRITE
        end
        claims = claims - 1
      end
    end
  end
  return waiter and HOLDING or OK, waiter
end

-- Returns whether a held value has been written now.
local function record_value(task, attempt, kind, value)
  if task == CLIENT then
    return false
  end
  local record = record_of(task)
  local known = record[KIND]
  if known and known ~= HELD or not known and record[DONE] then
    return false
  end
  record[KIND], record[VALUE_ATTEMPT] = kind, attempt
  fresh[task] = value
  changed[task] = true
  return known == HELD and kind ~= HELD
end

local function make_ready(child, record)
  local holder = holder_of(record)
  forget_edges(child, record)
  if child == CLIENT then
    notified = true
  end
  if holder then
    record[ATTEMPTS] = (record[ATTEMPTS] or 0) + 1
    activate(child, record, CLAIMED, record[ATTEMPTS], holder)
  else
    activate(child, record, READY, record[ATTEMPTS] or 0, '')
  end
end

local function grant(task, record, wanted)
  local winner = record[DONE]
  if winner then
    activate(task, record, UNSETTLED, winner, nonce)
    return { task, winner, inputs_of(wanted), fresh[task] or call('HGET', VALUES, task) }
  end
  record[ATTEMPTS] = (record[ATTEMPTS] or 0) + 1
  activate(task, record, CLAIMED, record[ATTEMPTS], nonce)
  return { task, record[ATTEMPTS], inputs_of(wanted) }
end

local function settle(outcome)
  local task, kind, edges, claims = outcome[1], outcome[3], outcome[5], outcome[6]
  local verdict, waiter = OK, nil
  if kind == HELD then
    verdict, waiter = may_hold(outcome)
    if verdict == WRITE then
      return { WRITE }
    end
  end
  local written = record_value(task, outcome[2], kind, outcome[4])
  local granted, ready = {}, {}
  for i = 1, #edges do
    local child, indegree, wanted = edges[i][1], edges[i][2], edges[i][3]
    local record = record_of(child)
    if not record[DONE] then
      if not record[STATE] then
        if edge_completes(child, record, indegree, task) then
          make_ready(child, record)
        elseif child == waiter then
          record[HOLDER] = nonce
          changed[child] = true
        elseif written and holder_of(record) == nonce then
          record[HOLDER] = nil
          changed[child] = true
        end
      end
      local state = record[STATE]
      if state == CLAIMED and record[OWNER] == nonce then
        granted[#granted + 1] = { child, record[ATTEMPT], inputs_of(wanted) }
      elseif state == READY and claims > 0 and child ~= CLIENT then
        claims = claims - 1
        granted[#granted + 1] = grant(child, record, wanted)
      elseif state == READY then
        ready[#ready + 1] = child
      end
    end
  end
  return { verdict, granted, ready, NONE }
end

local function use(uses)
  local freed = {}
  for i = 1, #uses do
    local task, consumers = uses[i][1], uses[i][2]
    local record = record_of(task)
    record[USES] = (record[USES] or 0) + 1
    changed[task] = true
    if record[USES] >= consumers and record[KIND] then
      if record[KIND] == STORED then
        freed[#freed + 1] = { task, record[VALUE_ATTEMPT] }
      end
      record[KIND], record[VALUE_ATTEMPT] = nil, nil
      fresh[task] = false
    end
  end
  return freed
end

local function commit(outcome)
  local task, attempt = outcome[1], outcome[2]
  local record = record_of(task)
  local winner = record[DONE]
  if winner and winner ~= attempt then
    return { LOST }
  end
  local settlement = settle(outcome)
  if settlement[1] == WRITE then
    return settlement
  end
  if not winner then
    forget_edges(task, record)
    record[DONE], record[ATTEMPTS] = attempt, nil
    settlement[4] = use(outcome[8])
  end
  if outcome[9] then
    deactivate(task, record)
  else
    activate(task, record, UNSETTLED, attempt, nonce)
  end
  return settlement
end

-- --- requests --------------------------------------------------------------------------------------------------------

local requests = {}

requests[PROBE] = function()
  local body = {}
  for _, task in ipairs(request[2]) do
    need(task)
  end
  read_ahead()
  for i, task in ipairs(request[2]) do
    local record = record_of(task)
    local value = record[KIND] and call('HGET', VALUES, task) or nil
    if record[STATE] then
      body[i] = { record[STATE], record[ATTEMPT], record[OWNER], value }
    elseif record[DONE] then
      body[i] = { SETTLED, record[DONE], '', value }
    else
      body[i] = { WAITING, record[ATTEMPTS] or 0, '', value }
    end
  end
  return body
end

requests[ARRIVE] = function()
  local outcomes, body = request[5], {}
  for _, outcome in ipairs(outcomes) do
    need(outcome[1])
    for _, edge in ipairs(outcome[5]) do
      need(edge[1])
    end
  end
  read_ahead()
  for i, outcome in ipairs(outcomes) do
    body[i] = settle(outcome)
  end
  return body
end

requests[COMMIT] = function()
  local outcomes, body = request[5], {}
  for _, outcome in ipairs(outcomes) do
    need(outcome[1])
    for _, edge in ipairs(outcome[5]) do
      need(edge[1])
    end
    for _, input in ipairs(outcome[8]) do
      need(input[1])
    end
  end
  read_ahead()
  for i, outcome in ipairs(outcomes) do
    body[i] = commit(outcome)
  end
  return body
end

requests[CLAIM] = function()
  local grants = {}
  for _, claim in ipairs(request[5]) do
    need(claim[1])
  end
  read_ahead()
  for _, claim in ipairs(request[5]) do
    local task = claim[1]
    local record = record_of(task)
    if record[STATE] == READY then
      if record[DONE] and not record[KIND] then
        deactivate(task, record)
      else
        grants[#grants + 1] = grant(task, record, claim[2])
      end
    elseif record[OWNER] == nonce then
      local committed = record[STATE] == UNSETTLED and record[KIND] and call('HGET', VALUES, task) or nil
      grants[#grants + 1] = { task, record[ATTEMPT], inputs_of(claim[2]), committed }
    end
  end
  return grants
end

requests[RENEW] = function()
  local packed = call('HGET', EXECUTORS, nonce)
  if packed then
    call('HSET', EXECUTORS, nonce, pack(unpacked(packed), now + lease))
  end
  return NONE
end

requests[SWEEP] = function()
  local lapsed, unclaimed = {}, {}
  for _, name in ipairs(call('SMEMBERS', ACTIVE)) do
    local task = tonumber(name)
    if task and task ~= CLIENT then
      need(task)
    end
  end
  table.sort(ahead)
  read_ahead()
  for _, task in ipairs(ahead) do
    local record = records[task]
    if record[STATE] == READY then
      if record[SINCE] + request[2] <= now then
        record[SINCE] = now
        changed[task] = true
        unclaimed[#unclaimed + 1] = task
      end
    elseif not alive(record[OWNER]) then
      activate(task, record, READY, record[ATTEMPT], '')
      lapsed[#lapsed + 1] = task
    end
  end
  for _, key in ipairs(KEYS) do
    call('EXPIRE', key, ttl)
  end
  return { lapsed, unclaimed }
end

requests[RELEASE] = function()
  local tasks, uses = request[5], request[6]
  for _, task in ipairs(tasks) do
    local record = record_of(task)
    if record[STATE] and record[OWNER] == nonce then
      activate(task, record, READY, record[ATTEMPT], '')
    end
  end
  return use(uses)
end

-- --- the job ---------------------------------------------------------------------------------------------------------

local known = call('HMGET', EXECUTORS, '', nonce or '', '=' .. (nonce or ''))
if not known[1] then
  local first = op == ARRIVE and request[5][1]
  if not (first and first[1] == CLIENT) then
    return pack({ GONE, '', NONE })
  end
  -- A field of no task keeps each of these from becoming empty, which would end it and so its expiry.
  for _, key in ipairs({ RECORDS, VALUES, EXECUTORS }) do
    call('HSET', key, '', pack(RUNNING, ''))
    call('EXPIRE', key, ttl)
  end
  call('SADD', ACTIVE, '')
  call('EXPIRE', ACTIVE, ttl)
  known[1] = pack(RUNNING, '')
end
local status, reason = unpacked(known[1])

if seq then
  local last = known[2] and unpacked(known[2]) or 0
  if seq == last then
    return known[3] or pack({ RUNNING, '', NONE })
  elseif seq < last then
    return pack({ STALE, '', NONE })
  end
  deadlines[nonce] = now + lease
end

if op == RELEASE and request[7] then
  for _, child in ipairs(call('SMEMBERS', WIDE)) do
    call('UNLINK', WIDE .. ':' .. child)
  end
  call('UNLINK', unpack(KEYS))
  return pack({ GONE, '', NONE })
elseif op == CANCEL then
  if status == RUNNING then
    status, reason, notified = request[2], request[3], true
    call('HSET', EXECUTORS, '', pack(status, reason))
  end
end

local body = NONE
if op ~= CANCEL and (status == RUNNING or op == PROBE or op == RENEW) then
  body = requests[op]()
end
write_back()
local reply = pack({ status, reason, body })
if seq then
  call('HSET', EXECUTORS, nonce, pack(seq, now + lease), '=' .. nonce, reply)
end
if notified then
  call('RPUSH', NOTICE, 1)
  call('EXPIRE', NOTICE, ttl)
end
return reply
