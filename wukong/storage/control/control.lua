-- One request to one shard of one job, carried out as `wukong/protocol/model.py` says, which is its specification.
--
--   KEYS  records    hash: task -> packed record, see below
--         values     hash: task -> value as the client packed it, never looked into
--         active     set: tasks that are ready, claimed or unsettled, for the sweep
--         executors  hash: '' -> the job's status, first attempt and opener; nonce -> (seq, deadline); '=' nonce -> last reply
--         wide       set: waiting tasks of large in-degree; the edges of each are the set  <wide> ':' <task>
--         notice     list: a hint that the client should look
--   ARGV  request as `wire.py` packs it, time in seconds ('' is the server's), seconds until an abandoned shard expires
--
-- Records are worked on in Lua tables: those a request will need are read in one HMGET, those it changed are written in
-- one HSET at the end, so that an outcome costs no server call of its own. Request and reply are flat arrays, because it
-- is the making of small tables that takes the time. The first write is always an HSET or SADD: a server that is out of
-- memory refuses it, and with it the whole request, before anything has changed.

-- Names of numbers: `script.py` puts the numbers in their place, as each local a function uses costs time in every run.
local PROBE, ARRIVE, CLAIM, COMMIT, RENEW, SWEEP, CANCEL, RELEASE = 0, 1, 2, 3, 4, 5, 6, 7
local CLIENT = -1
local EPOCH = 1048576 -- attempts of one job epoch
local STORED, HELD = 1, 2
local OK, LOST, WRITE, HOLDING = 0, 1, 2, 3
local RUNNING, GONE, STALE = 0, 3, 4
local WAITING, READY, CLAIMED, UNSETTLED, SETTLED = 0, 1, 2, 3, 4

-- Places in a record. The first three are not stored, nor is what follows the last one in use.
local TASK, WAS_ACTIVE, CHANGED = 1, 2, 3
local DONE, USES, KIND, VALUE_ATTEMPT = 4, 5, 6, 7 -- winning attempt; uses of the value; where it is, and whose it is
local STATE, ATTEMPT, OWNER, SINCE, ATTEMPTS = 8, 9, 10, 11, 12 -- while active
local HOLDER, ARRIVED, PARENTS = 13, 14, 15 -- while waiting; the edges follow from PARENTS on if they are few

-- Places in a request, from where an outcome begins: its inputs follow from INPUTS on, and then its edges, each with
-- its child, the in-degree, the number of inputs wanted (-1: never to be claimed by the sender), and these. Settled is
-- nil if only a value is told of a task that is done.
local BODY = 5
local O_TASK, O_ATTEMPT, O_KIND, O_VALUE, O_CLAIMS, O_HOLD, O_SETTLED, O_INPUTS, O_EDGES = 0, 1, 2, 3, 4, 5, 6, 7, 8
local INPUTS = 9

local NARROW = 32 -- largest in-degree whose edges are kept within the record
local CHUNK = 3000 -- arguments of one call: Lua's stack ends at 8000

local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local request, now = unpacked(ARGV[1]), tonumber(ARGV[2])
if not now then
  local time = call('TIME')
  now = time[1] + time[2] / 1000000
end
local op, nonce, seq, lease = request[1], request[2], request[3], request[4]
if op == RENEW then
  seq, lease = nil, seq
elseif not (op >= ARRIVE and op <= COMMIT or op == RELEASE) then
  nonce, seq = '', nil
end

-- --- the job ---------------------------------------------------------------------------------------------------------

local function remove()
  for _, child in ipairs(call('SMEMBERS', KEYS[5])) do
    call('UNLINK', KEYS[5] .. ':' .. child)
  end
  call('UNLINK', unpack(KEYS))
end

local job = call('HMGET', KEYS[4], '', nonce)
local opens = op == ARRIVE and request[BODY] > 0 and request[BODY + 1] == CLIENT
local later = job[1] and opens and request[BODY + 1 + O_ATTEMPT] * EPOCH > select(3, unpacked(job[1]))
local keys = call('EXISTS', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
-- A server that evicts keys may take one of them: what it leaves means nothing without.
if later or keys > 0 and keys < 4 then
  remove()
  job[1], job[2] = nil, nil
end
if not job[1] then
  if not opens then
    return pack({ GONE, '' })
  end
  -- A field of no task keeps each of these from becoming empty, which would end it and so its expiry.
  job[1] = pack(RUNNING, '', request[BODY + 1 + O_ATTEMPT] * EPOCH, nonce)
  call('HSET', KEYS[4], '', job[1])
  call('HSET', KEYS[1], '', '')
  call('HSET', KEYS[2], '', '')
  call('SADD', KEYS[3], '')
  for i = 1, 4 do
    call('EXPIRE', KEYS[i], ARGV[3])
  end
end
local status, reason, base, opener = unpacked(job[1])

if seq then
  local last = job[2] and unpacked(job[2]) or 0
  if seq == last then
    call('HSET', KEYS[4], nonce, pack(seq, now + lease))
    return call('HGET', KEYS[4], '=' .. nonce) or pack({ RUNNING, '' })
  elseif seq < last then
    return pack({ STALE, '' })
  end
end

if op == CANCEL then
  if status == RUNNING then
    status, reason = request[2], request[3]
    call('HSET', KEYS[4], '', pack(status, reason, base, opener))
    call('RPUSH', KEYS[6], 1)
    call('EXPIRE', KEYS[6], ARGV[3])
  end
  return pack({ status, reason })
elseif op == RENEW then
  if job[2] then
    call('HSET', KEYS[4], nonce, pack(unpacked(job[2]), now + lease))
  end
  return pack({ status, reason })
elseif op == RELEASE and request[BODY] then
  remove()
  return pack({ GONE, '' })
elseif status ~= RUNNING and op ~= PROBE then
  local reply = pack({ status, reason })
  if seq then
    call('HSET', KEYS[4], nonce, pack(seq, now + lease), '=' .. nonce, reply)
  end
  return reply
end

-- --- records ---------------------------------------------------------------------------------------------------------

local records, changed, ahead = {}, {}, {} -- by task, `false` for one about to be read; to be written; to be read
local fresh, freed = {}, {} -- values written by this request, by task; tasks whose values it deletes
local deadlines = { [nonce] = seq and now + lease }
local reply, size = { status, reason }, 2

local function decode(task, packed)
  local record
  if packed then
    record = { task, false, false, unpacked(packed) }
    record[WAS_ACTIVE] = record[STATE] ~= nil
  else
    record = { task, false, false, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil }
  end
  records[task] = record
  return record
end

local function record_of(task)
  return records[task] or decode(task, call('HGET', KEYS[1], task))
end

local function change(record)
  if not record[CHANGED] then
    record[CHANGED] = true
    changed[#changed + 1] = record
  end
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
    local packed = call('HMGET', KEYS[1], unpack(ahead, first, last))
    for i = first, last do
      decode(ahead[i], packed[i - first + 1])
    end
  end
end

local function write(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    call(command, key, unpack(arguments, first, math.min(first + CHUNK - 1, #arguments)))
  end
end

local function write_back()
  local packed, values, added, removed = {}, {}, {}, {}
  for i = 1, #changed do
    local record = changed[i]
    local last = record[STATE] and ATTEMPTS or VALUE_ATTEMPT
    if record[ARRIVED] then
      last = record[PARENTS] and ARRIVED + record[ARRIVED] or ARRIVED
    end
    packed[2 * i - 1], packed[2 * i] = record[TASK], pack(unpack(record, DONE, last))
    if record[STATE] and not record[WAS_ACTIVE] then
      added[#added + 1] = record[TASK]
    elseif record[WAS_ACTIVE] and not record[STATE] then
      removed[#removed + 1] = record[TASK]
    end
  end
  for task, value in pairs(fresh) do
    values[#values + 1], values[#values + 2] = task, value
  end
  write('HSET', KEYS[1], packed)
  write('HSET', KEYS[2], values)
  write('HDEL', KEYS[2], freed) -- after the HSET: a value may be written and used up by one request
  write('SADD', KEYS[3], added)
  write('SREM', KEYS[3], removed)
end

local function alive(name)
  local deadline = deadlines[name]
  if not deadline then
    local packed = call('HGET', KEYS[4], name)
    deadline = packed and select(2, unpacked(packed)) or -math.huge
    deadlines[name] = deadline
  end
  return deadline >= now
end

local function value_of(record)
  return record[KIND] and (fresh[record[TASK]] or call('HGET', KEYS[2], record[TASK])) or false
end

-- Adds the inputs that request[first..last] names to the reply: how many have a value, and each with its value.
local function tell_inputs(first, last)
  local place = size + 1
  size = place
  for from = first, last, CHUNK do
    local to = math.min(from + CHUNK - 1, last)
    local values = call('HMGET', KEYS[2], unpack(request, from, to))
    for i = from, to do
      local task = request[i]
      local record = records[task]
      local value = values[i - from + 1]
      if record then
        value = record[KIND] and (fresh[task] or value)
      end
      if value then
        reply[size + 1], reply[size + 2] = task, value
        size = size + 2
      end
    end
  end
  reply[place] = (size - place) / 2
end

-- --- rules, each as the model's method of the same name --------------------------------------------------------------

local function activate(record, state, attempt, owner)
  record[STATE], record[ATTEMPT], record[OWNER], record[SINCE] = state, attempt, owner, now
  change(record)
end

local function deactivate(record)
  record[STATE], record[ATTEMPT], record[OWNER], record[SINCE] = nil, nil, nil, nil
  change(record)
end

local function holder_of(record)
  local holder = record[HOLDER]
  return holder and alive(holder) and holder or nil
end

local function forget_edges(record)
  local arrived = record[ARRIVED]
  if arrived and record[PARENTS] then
    for i = PARENTS, ARRIVED + arrived do
      record[i] = nil
    end
  elseif arrived then
    call('SREM', KEYS[5], record[TASK])
    call('UNLINK', KEYS[5] .. ':' .. record[TASK])
  end
  record[ARRIVED], record[HOLDER] = nil, nil
end

local function has_arrived(record, parent)
  local arrived = record[ARRIVED]
  if not arrived then
    return false
  elseif not record[PARENTS] then
    return call('SISMEMBER', KEYS[5] .. ':' .. record[TASK], parent) == 1
  end
  for i = PARENTS, ARRIVED + arrived do
    if record[i] == parent then
      return true
    end
  end
  return false
end

local function edge_completes(record, indegree, parent)
  if indegree == 1 then
    return true
  end
  local arrived = record[ARRIVED] or 0
  if indegree > NARROW then
    local edges = KEYS[5] .. ':' .. record[TASK]
    if call('SADD', edges, parent) == 0 then
      return false
    end
    if arrived == 0 then
      call('SADD', KEYS[5], record[TASK])
      call('EXPIRE', KEYS[5], ARGV[3])
      call('EXPIRE', edges, ARGV[3])
    end
  elseif has_arrived(record, parent) then
    return false
  else
    record[PARENTS + arrived] = parent
  end
  record[ARRIVED] = arrived + 1
  change(record)
  return arrived + 1 >= indegree
end

-- Returns the verdict and the child to wait for.
local function may_hold(at)
  local task, claims, waiter = request[at + O_TASK], request[at + O_CLAIMS], nil
  local edge = at + INPUTS + 2 * request[at + O_INPUTS]
  for _ = 1, request[at + O_EDGES] do
    local child, indegree, wanted = request[edge], request[edge + 1], request[edge + 2]
    local record = record_of(child)
    local state = record[STATE]
    if not (record[DONE] or state and record[OWNER] == nonce) then
      local holder = holder_of(record)
      if child == CLIENT or wanted < 0 or state and state ~= READY or holder and holder ~= nonce then
        return WRITE
      end
      local missing = indegree - (record[ARRIVED] or 0)
      if not state and missing > (has_arrived(record, task) and 0 or 1) then
        if not request[at + O_HOLD] or waiter then
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
    edge = edge + 3 + math.max(wanted, 0)
  end
  return waiter and HOLDING or OK, waiter
end

local function record_value(at)
  local task, kind = request[at + O_TASK], request[at + O_KIND]
  if task == CLIENT then
    return
  end
  local record = record_of(task)
  local known = record[KIND]
  local used_up = not known and record[DONE] and not (request[at + O_SETTLED] == nil and request[at + O_HOLD])
  if known and known ~= HELD or used_up then
    return
  end
  record[KIND], record[VALUE_ATTEMPT] = kind, request[at + O_ATTEMPT]
  fresh[task] = request[at + O_VALUE]
  change(record)
end

local function make_ready(record)
  local holder = holder_of(record)
  forget_edges(record)
  if record[TASK] == CLIENT then
    call('RPUSH', KEYS[6], 1)
    call('EXPIRE', KEYS[6], ARGV[3])
  end
  if holder then
    record[ATTEMPTS] = (record[ATTEMPTS] or base) + 1
    activate(record, CLAIMED, record[ATTEMPTS], holder)
  else
    activate(record, READY, record[ATTEMPTS] or base, '')
  end
end

local function grant(record)
  if record[DONE] then
    activate(record, UNSETTLED, record[DONE], nonce)
  else
    record[ATTEMPTS] = (record[ATTEMPTS] or base) + 1
    activate(record, CLAIMED, record[ATTEMPTS], nonce)
  end
end

-- Adds a settlement to the reply: verdict, number of children told of, number of values freed; then for each such child
-- its attempt (0: ready, and nobody's) and, if it is granted, its inputs.
local function settle(at)
  local task, claims = request[at + O_TASK], request[at + O_CLAIMS]
  local verdict, waiter = OK, nil
  if request[at + O_KIND] == HELD then
    verdict, waiter = may_hold(at)
  end
  local place, told = size, 0
  reply[place + 1], reply[place + 2], reply[place + 3] = verdict, 0, 0
  size = place + 3
  if verdict == WRITE then
    return false
  end
  record_value(at)
  local edge = at + INPUTS + 2 * request[at + O_INPUTS]
  for _ = 1, request[at + O_EDGES] do
    local child, wanted = request[edge], request[edge + 2]
    local record = record_of(child)
    if not record[DONE] then
      if not record[STATE] then
        if edge_completes(record, request[edge + 1], task) then
          make_ready(record)
        elseif child == waiter then
          record[HOLDER] = nonce
          change(record)
        elseif request[at + O_SETTLED] == nil and holder_of(record) == nonce then
          record[HOLDER] = nil
          change(record)
        end
      end
      if record[STATE] == READY and claims > 0 and wanted >= 0 and child ~= CLIENT then
        claims = claims - 1
        grant(record)
      end
      local mine = record[STATE] == CLAIMED and record[OWNER] == nonce
      if mine or record[STATE] == READY then
        reply[size + 1], reply[size + 2] = child, mine and record[ATTEMPT] or 0
        size, told = size + 2, told + 1
        if mine then
          tell_inputs(edge + 3, edge + 2 + wanted)
        end
      end
    end
    edge = edge + 3 + math.max(wanted, 0)
  end
  reply[place + 2] = told
  return place + 3
end

-- Counts the uses that request[first..last] names; adds those freed to the reply, and returns how many.
local function use(first, last)
  local before = size
  for i = first, last, 2 do
    local record = record_of(request[i])
    record[USES] = (record[USES] or 0) + 1
    change(record)
    if record[USES] >= request[i + 1] and record[KIND] then
      if record[KIND] == STORED then
        reply[size + 1], reply[size + 2] = request[i], record[VALUE_ATTEMPT]
        size = size + 2
      end
      record[KIND], record[VALUE_ATTEMPT] = nil, nil
      freed[#freed + 1] = request[i]
    end
  end
  return (size - before) / 2
end

local function commit(at)
  local record, attempt = record_of(request[at + O_TASK]), request[at + O_ATTEMPT]
  local winner = record[DONE]
  if winner and winner ~= attempt or not winner and attempt <= base and nonce ~= opener then
    reply[size + 1], reply[size + 2], reply[size + 3] = LOST, 0, 0
    size = size + 3
    return
  end
  local settled = request[at + O_SETTLED]
  if not winner and settled == nil then
    reply[size + 1], reply[size + 2], reply[size + 3] = LOST, 0, 0
    size = size + 3
    return
  end
  local count_of_freed = settle(at)
  if not count_of_freed then
    return
  end
  if not winner then
    forget_edges(record)
    record[DONE], record[ATTEMPTS] = attempt, nil
    reply[count_of_freed] = use(at + INPUTS, at + INPUTS + 2 * request[at + O_INPUTS] - 1)
  end
  if settled == nil then
    if request[at + O_KIND] == STORED and not record[KIND] then
      reply[size + 1], reply[size + 2] = record[TASK], attempt
      size, reply[count_of_freed] = size + 2, 1
    end
  elseif settled then
    deactivate(record)
  else
    activate(record, UNSETTLED, attempt, nonce)
  end
end

-- --- requests --------------------------------------------------------------------------------------------------------

if op == COMMIT or op == ARRIVE then
  local starts, at, early = {}, BODY + 1, false
  for i = 1, request[BODY] do
    starts[i] = at
    early = early or request[at + O_ATTEMPT] > base + EPOCH
    need(request[at])
    local edge = at + INPUTS
    for _ = 1, request[at + O_INPUTS] do
      need(request[edge])
      edge = edge + 2
    end
    for _ = 1, request[at + O_EDGES] do
      need(request[edge])
      edge = edge + 3 + math.max(request[edge + 2], 0)
    end
    at = edge
  end
  read_ahead()
  local apply = op == COMMIT and commit or settle
  if op == ARRIVE and early then
    -- Not opened yet under that epoch; it will forget these edges when it is.
    reply, starts = { GONE, '' }, {}
  end
  for i = 1, #starts do
    apply(starts[i])
  end
elseif op == CLAIM then
  local at = BODY + 1
  for _ = 1, request[BODY] do
    need(request[at])
    at = at + 2 + request[at + 1]
  end
  read_ahead()
  at = BODY + 1
  for _ = 1, request[BODY] do
    local record = records[request[at]]
    if record[STATE] == READY then
      if record[DONE] and not record[KIND] then
        deactivate(record)
      else
        grant(record)
      end
    end
    if record[STATE] and record[OWNER] == nonce then
      reply[size + 1], reply[size + 2] = record[TASK], record[ATTEMPT]
      reply[size + 3] = record[STATE] == UNSETTLED and value_of(record)
      size = size + 3
      tell_inputs(at + 2, at + 1 + request[at + 1])
    end
    at = at + 2 + request[at + 1]
  end
elseif op == RELEASE then
  local tasks = request[BODY + 2]
  for i = BODY + 3, BODY + 2 + tasks do
    local record = record_of(request[i])
    if record[STATE] and record[OWNER] == nonce then
      activate(record, READY, record[ATTEMPT], '')
    end
  end
  if request[BODY + 1] * EPOCH == base then
    use(BODY + 3 + tasks, #request)
  end
elseif op == SWEEP then
  local lapsed, unclaimed, late = {}, {}, {}
  for i = 4, 3 + request[3] do
    local executor = call('HGET', KEYS[4], request[i])
    if executor then
      call('HSET', KEYS[4], request[i], pack(unpacked(executor), -1))
    end
  end
  for i = 4 + request[3], #request do
    late[request[i]] = true
  end
  for _, name in ipairs(call('SMEMBERS', KEYS[3])) do
    local task = tonumber(name)
    if task and task ~= CLIENT then
      need(task)
    end
  end
  table.sort(ahead)
  read_ahead()
  for _, task in ipairs(ahead) do
    local record = records[task]
    if record[STATE] ~= READY then
      if not alive(record[OWNER]) or record[STATE] == CLAIMED and late[task] then
        activate(record, READY, record[ATTEMPT], '')
        lapsed[#lapsed + 1] = task
      end
    elseif record[SINCE] + request[2] <= now then
      activate(record, READY, record[ATTEMPT], '')
      unclaimed[#unclaimed + 1] = task
    end
  end
  reply[3] = lapsed
  reply[4] = unclaimed
  for i = 1, 6 do
    call('EXPIRE', KEYS[i], ARGV[3])
  end
  for _, child in ipairs(call('SMEMBERS', KEYS[5])) do
    call('EXPIRE', KEYS[5] .. ':' .. child, ARGV[3])
  end
else -- PROBE
  for i = 2, #request do
    need(request[i])
  end
  read_ahead()
  for i = 2, #request do
    local record = records[request[i]]
    local state, attempt = record[STATE], record[ATTEMPT]
    if not state then
      state = record[DONE] and SETTLED or WAITING
      attempt = record[DONE] or record[ATTEMPTS] or base
    end
    reply[size + 1], reply[size + 2], reply[size + 3] = state, attempt, record[OWNER] or ''
    reply[size + 4] = value_of(record)
    size = size + 4
  end
end

write_back()
local packed = pack(reply)
if seq then
  call('HSET', KEYS[4], nonce, pack(seq, now + lease), '=' .. nonce, packed)
end
return packed
