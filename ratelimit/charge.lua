-- All charges of one request in one step, over Redis: what `memory` does, in Redis's own words.
-- KEYS: one per charge. ARGV: `now` in microseconds ('' for Redis's own time), which charges stay when one is over
-- (each, spare_others, all_or_nothing), and a JSON list with a list per charge: algorithm, limit, window in seconds,
-- hits, role, capacity, whether refused hits count, lease id, expiry in seconds.
-- Answers, per charge: is over (1 or 0), count, attempted, microseconds until reset (-1: nobody can tell).

local COUNT_MAX = 9007199254740991
local now = tonumber(ARGV[1])
local is_own_time = now == nil
if is_own_time then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function put(name, count, seconds)
  redis.call('SET', name, string.format('%.0f', math.min(math.max(count, 0), COUNT_MAX)), 'EX', seconds)
end

-- The reference's keys: a fixed window's count, named after the window's start in seconds.
local function fixed_window(charge)
  local start = math.floor(now / charge.period) * charge.period
  local name = charge.key
  if is_own_time then name = name .. '_' .. string.format('%.0f', start / 1000000) end
  local self = { before = tonumber(redis.call('GET', name) or 0) }
  self.value = self.before
  function self.count() return self.value end
  function self.apply(hits) self.value = math.min(math.max(0, self.value + hits), COUNT_MAX) end
  function self.reset() return start + charge.period - now end
  function self.save(expiry) put(name, self.value, expiry) end
  return self
end

local function sliding_window(charge)
  local start = math.floor(now / charge.period) * charge.period
  local from, current, previous = string.match(redis.call('GET', charge.key) or '', '^(%d+):(%d+):(%d+)$')
  from, current, previous = tonumber(from or 0), tonumber(current or 0), tonumber(previous or 0)
  if from < start then
    previous = from == start - charge.period and current or 0
    current = 0
  end
  local left = start + charge.period - now
  local self = { before = current, value = current }
  function self.count() return self.value + math.ceil(previous * left / charge.period) end
  function self.apply(hits) self.value = math.min(math.max(0, self.value + hits), COUNT_MAX) end
  function self.reset(this)
    if not this.is_over then return math.max(left, 1) end
    local room = this.limit - math.max(1, this.hits)
    if self.value <= room then
      return math.max(left - math.floor(charge.period * (room - self.value) / math.max(1, previous)), 1)
    end
    if room < 0 then return left + charge.period end
    return math.max(left + charge.period - math.floor(charge.period * room / math.max(1, self.value)), 1)
  end
  function self.save(expiry)
    local value = string.format('%.0f:%.0f:%.0f', start, self.value, previous)
    redis.call('SET', charge.key, value, 'EX', expiry)
  end
  return self
end

local function token_bucket(charge)
  local interval = charge.limit > 0 and charge.period / charge.limit or 0
  local full_at = math.max(now, tonumber(redis.call('GET', charge.key) or 0))
  local self = { before = full_at, value = full_at }
  function self.count()
    if interval == 0 then return 0 end
    return math.ceil((self.value - now) / interval - 0.000001)
  end
  function self.apply(hits) self.value = math.max(now, self.value + hits * interval) end
  function self.reset(this)
    if interval == 0 then return charge.period end
    local missing = this.is_over and math.max(1, this.hits) - this.capacity or 0
    return math.max(0, self.value - now + missing * interval)
  end
  function self.save()
    local milliseconds = math.ceil((self.value - now) / 1000)
    if milliseconds > 0 then
      redis.call('SET', charge.key, string.format('%.17g', self.value), 'PX', milliseconds)
    else
      redis.call('DEL', charge.key)
    end
  end
  return self
end

local function concurrency(charge)
  redis.call('ZREMRANGEBYSCORE', charge.key, '-inf', string.format('%.0f', now))
  local total = redis.call('ZCARD', charge.key)
  local self = { before = {}, value = {}, held = {}, total = total }
  function self.holds(lease)
    if self.held[lease] == nil then self.held[lease] = redis.call('ZSCORE', charge.key, lease) and 1 or 0 end
    if self.value[lease] ~= nil then return self.value[lease] == 1 end
    return self.held[lease] == 1
  end
  function self.count()
    local count = total
    for lease, holds in pairs(self.value) do count = count + holds - self.held[lease] end
    return count
  end
  function self.apply(hits, lease)
    if hits ~= 0 and self.holds(lease) ~= (hits > 0) then self.value[lease] = hits > 0 and 1 or 0 end
  end
  function self.reset() return -1 end
  function self.save(expiry)
    for lease, holds in pairs(self.value) do
      if holds == 1 and self.held[lease] == 0 then
        redis.call('ZADD', charge.key, string.format('%.0f', now + charge.period), lease)
        redis.call('EXPIRE', charge.key, expiry)
      elseif holds == 0 then
        redis.call('ZREM', charge.key, lease)
      end
    end
  end
  return self
end

local KINDS = {
  fixed_window = fixed_window, sliding_window = sliding_window, token_bucket = token_bucket, concurrency = concurrency
}

local cells, charges = {}, {}
for i, fields in ipairs(cjson.decode(ARGV[3])) do
  local charge = {
    key = KEYS[i], algorithm = fields[1], limit = fields[2], period = fields[3] * 1000000, hits = fields[4],
    role = fields[5], capacity = fields[6], counts_rejected = fields[7], lease = fields[8], expiry = fields[9]
  }
  -- One counter may stand in a request more than once; own time gives one key several windows.
  local name = charge.algorithm .. charge.period .. charge.key
  cells[name] = cells[name] or KINDS[charge.algorithm](charge)
  charge.cell = cells[name]
  charges[i] = charge
end

local function judge(charge)
  local cell, added = charge.cell, charge.hits
  local is_free = false
  if charge.algorithm == 'concurrency' then
    is_free = cell.holds(charge.lease)
    added = (charge.hits > 0 and not is_free) and 1 or 0
  end
  charge.attempted = math.min(math.max(0, cell.count() + added), COUNT_MAX)
  charge.is_over = charge.hits >= 0 and not is_free and charge.attempted > charge.capacity
end

local function is_bounded(charge) return charge.algorithm == 'token_bucket' or charge.algorithm == 'concurrency' end

local function take(charge, hits)
  charge.cell.apply(hits, charge.lease)
  charge.count = charge.cell.count()
  charge.reset = charge.cell.reset(charge)
end

local any_over, any_enforced, quotas, quotas_over = false, false, 0, 0
for _, charge in ipairs(charges) do
  judge(charge)
  local counts = not charge.is_over or (charge.counts_rejected and not is_bounded(charge))
  take(charge, counts and charge.hits or 0)
  any_over = any_over or charge.is_over
  any_enforced = any_enforced or (charge.is_over and charge.role == 'enforced')
  if charge.role == 'quota' then
    quotas = quotas + 1
    if charge.is_over then quotas_over = quotas_over + 1 end
  end
end

local function stays(charge, refused)
  if charge.hits <= 0 then return true end
  if charge.is_over and (is_bounded(charge) or not charge.counts_rejected) then return false end
  if refused and (ARGV[2] == 'all_or_nothing' or charge.algorithm == 'concurrency') then return false end
  return ARGV[2] ~= 'spare_others' or charge.is_over
end

if any_over then
  local refused = any_enforced or (quotas > 0 and quotas == quotas_over)
  for _, cell in pairs(cells) do
    cell.value = type(cell.before) == 'table' and {} or cell.before
  end
  for _, charge in ipairs(charges) do take(charge, stays(charge, refused) and charge.hits or 0) end
end

local answer = {}
for _, charge in ipairs(charges) do
  if charge.hits ~= 0 and charge.cell.value ~= charge.cell.before then charge.cell.save(charge.expiry) end
  answer[#answer + 1] = charge.is_over and 1 or 0
  answer[#answer + 1] = charge.count
  answer[#answer + 1] = charge.attempted
  answer[#answer + 1] = math.ceil(charge.reset)
end
return answer
