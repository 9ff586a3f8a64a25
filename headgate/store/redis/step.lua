-- One call of one sidecar, as one step: what it gives back, still holds, brings along, asks for and waits for, in
-- that order. Same arithmetic as `headgate.store.ledger`. Time is Redis's own, in microseconds.
--
-- KEYS, all in one hash slot:
local LEASES, HELD, COUNTS, MEANS = KEYS[1], KEYS[2], KEYS[3], KEYS[4] -- expiry by lease; lease; in flight; hold times
local SIDECARS, CALLS, WAITING = KEYS[5], KEYS[6], KEYS[7] -- expiry by sidecar; its last call; those with claims
local BIRTH, RECOVERY = KEYS[8], KEYS[9] -- which life of this Redis; there while leases are being brought back
local CLAIMS = KEYS[10] -- start of a key per cluster: a sidecar's waiters who are next
-- ARGV: the call (JSON), the channel for news.

local FIRST_GUESS_SECONDS, NEWEST_WEIGHT = 1, 0.1
local MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.01, 120
local REAPED_AT_ONCE = 500
local NOTHING = {}

local call = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local me = call.sidecar

-- Of two calls the sidecar gives up the earlier before it makes the later: the earlier may not come after it.
local last = redis.call('HGET', CALLS, me)
if last and tonumber(last) >= call.number then
  return { 'late' }
end

local birth = redis.call('GET', BIRTH)
local is_lost = call.birth and call.birth ~= birth
if not birth then
  birth = call.new_birth
  redis.call('SET', BIRTH, birth)
end
if is_lost then
  -- Leases were held in a life of Redis that is over: nothing is granted until they had time to be brought back.
  redis.call('SET', RECOVERY, me, 'NX', 'PX', call.recovery_ms)
  return { 'lost', birth }
end

-- in flight

local counts = {}

local function count(field)
  local known = counts[field]
  if not known then
    known = tonumber(redis.call('HGET', COUNTS, field) or 0)
    counts[field] = known
  end
  return known
end

local function used(field, extra)
  return count(field) + (extra[field] or 0)
end

local function amounts(q)
  local fields = { ['t' .. q.tenant] = 1 }
  if q.cluster then
    fields['r' .. q.tier] = 1
    fields['c' .. q.cluster] = 1
    fields['C' .. q.cluster .. '\0' .. q.tier] = 1
    if q.tokens then
      fields['k' .. q.cluster] = q.tokens
      fields['K' .. q.cluster .. '\0' .. q.tier] = q.tokens
    end
  end
  return fields
end

local function change(q, sign)
  for field, amount in pairs(amounts(q)) do
    count(field)
    counts[field] = redis.call('HINCRBY', COUNTS, field, sign * amount)
    if counts[field] == 0 then
      redis.call('HDEL', COUNTS, field)
    end
  end
end

-- limits

local function room(q, all, by_tier, share, limit, extra)
  local free = limit - used(all .. q.cluster, extra)
  for _, other in ipairs(q.reserved or NOTHING) do
    free = free - math.max(0, other[share] - used(by_tier .. q.cluster .. '\0' .. other[1], extra))
  end
  return free
end

local function first_full(q, extra)
  if q.tenant_limit and used('t' .. q.tenant, extra) >= q.tenant_limit then
    return 'tenant_concurrency'
  end
  if not q.cluster then
    return nil
  end
  if q.tier_limit and used('r' .. q.tier, extra) >= q.tier_limit then
    return 'tier_concurrency'
  end
  if q.cluster_limit and room(q, 'c', 'C', 2, q.cluster_limit, extra) < 1 then
    return 'cluster_concurrency'
  end
  if q.cluster_token_limit and room(q, 'k', 'K', 3, q.cluster_token_limit, extra) < (q.tokens or 0) then
    return 'cluster_tokens'
  end
  return nil
end

local function retry_after(q, scope)
  local field = 'c' .. (q.cluster or '')
  if scope == 'tenant_concurrency' then
    field = 't' .. q.tenant
  elseif scope == 'tier_concurrency' then
    field = 'r' .. q.tier
  end
  local mean = tonumber(redis.call('HGET', MEANS, q.cluster or '') or FIRST_GUESS_SECONDS)
  local seconds = mean / math.max(1, count(field))
  return string.format('%.17g', math.min(math.max(seconds, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS))
end

local function learn(q, seconds)
  local cluster = q.cluster or ''
  local mean = tonumber(redis.call('HGET', MEANS, cluster) or seconds)
  redis.call('HSET', MEANS, cluster, string.format('%.17g', mean + NEWEST_WEIGHT * (seconds - mean)))
end

-- leases

local news, has_news = {}, {}

-- To all who wait, or to one sidecar.
local function tell(tenant, tier, cluster, sidecar)
  local key = tenant .. '\0' .. tier .. '\0' .. cluster .. '\0' .. (sidecar or '')
  if not has_news[key] then
    has_news[key] = true
    news[#news + 1] = { tenant, tier, cluster, sidecar or '' }
  end
end

local function hold(q, granted_at)
  change(q, 1)
  redis.call('HSET', HELD, q.id, cmsgpack.pack({ q.tenant, q.tier, q.cluster or false, q.tokens or false, granted_at }))
  redis.call('ZADD', LEASES, now + call.lease_us, q.id)
end

local function let_go(id)
  local packed = redis.call('HGET', HELD, id)
  if not packed then
    redis.call('ZREM', LEASES, id)
    return nil
  end
  local held = cmsgpack.unpack(packed)
  local q = { tenant = held[1], tier = held[2], cluster = held[3] or nil, tokens = held[4] or nil }
  -- First what a Redis out of memory refuses, so that all of it happens or nothing.
  change(q, -1)
  redis.call('HDEL', HELD, id)
  redis.call('ZREM', LEASES, id)
  tell(q.tenant, q.tier, q.cluster or '')
  return q, (now - held[5]) / 1000000
end

local reaped = {}

local function reap()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, REAPED_AT_ONCE)) do
    local q = let_go(id)
    if q then
      reaped[#reaped + 1] = { q.tenant, q.tier, q.cluster or '' }
    end
  end
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', SIDECARS, '-inf', now)) do
    redis.call('ZREM', SIDECARS, gone)
    redis.call('HDEL', CALLS, gone)
  end
end

-- claims: whoever waits at another sidecar and goes first is left what it can use

local claims_of_others = {}

local function others(cluster)
  if claims_of_others[cluster] then
    return claims_of_others[cluster]
  end
  local found, entries = {}, redis.call('HGETALL', CLAIMS .. cluster)
  for at = 1, #entries, 2 do
    if entries[at] ~= me then
      local expires, claims = unpack(cmsgpack.unpack(entries[at + 1]))
      if expires <= now then
        redis.call('HDEL', CLAIMS .. cluster, entries[at])
      else
        for _, claim in ipairs(claims) do
          claim.expires = expires
          claim.sidecar = entries[at]
          claim.rank = (claim.priority or 0) - math.floor((now - claim.joined) / call.ageing_us)
          found[#found + 1] = claim
        end
      end
    end
  end
  table.sort(found, function(a, b)
    return a.rank < b.rank or (a.rank == b.rank and a.joined < b.joined)
  end)
  claims_of_others[cluster] = found
  return found
end

-- What those who go first would take now, who they are, and when the last is given up if it takes nothing.
local function promised(q, joined)
  local rank = (q.priority or 0) - math.floor((now - joined) / call.ageing_us)
  local extra, firsts, expires = nil, {}, 0
  for _, claim in ipairs(others(q.cluster)) do
    if claim.rank > rank or (claim.rank == rank and claim.joined > joined) then
      break
    end
    local left = claim.count or 1
    while left > 0 and not first_full(claim, extra or NOTHING) do
      extra = extra or {}
      for field, amount in pairs(amounts(claim)) do
        extra[field] = (extra[field] or 0) + amount
      end
      firsts[claim] = true
      expires = math.max(expires, claim.expires)
      left = left - 1
    end
  end
  return extra, firsts, expires
end

local function refusal(q)
  local scope = first_full(q, NOTHING)
  if scope then
    return { scope, retry_after(q, scope), 0 }
  end
  if not q.cluster then
    return nil
  end
  local extra, firsts, expires = promised(q, now - math.floor((q.waited or 0) * 1000000))
  scope = extra and first_full(q, extra)
  if scope then
    -- There is room for those who go first. Whoever was refused before may not know it: what made the room was maybe
    -- no release, but another claim's end.
    for claim in pairs(firsts) do
      tell(claim.tenant, claim.tier, q.cluster, claim.sidecar)
    end
    return { scope, retry_after(q, scope), expires - now }
  end
  return nil
end

local granted = {}

local function ask(q)
  -- The answer shows all the numbers the question is about.
  for field in pairs(amounts(q)) do
    count(field)
  end
  if q.cluster then
    count('k' .. q.cluster)
  end
  local refused = refusal(q)
  if refused then
    return refused
  end
  hold(q, now)
  if q.tag then
    granted[q.tag] = true
  end
  return { 'granted' }
end

-- Whether a claim had room that it has not under its new limits.
local function makes_way(before, after)
  return not first_full(before, NOTHING) and first_full(after, NOTHING)
end

-- Whether one of these could be served now: then the sidecar missed some news.
local function stand(cluster, claims)
  local before = redis.call('HGET', CLAIMS .. cluster, me)
  local standing, tags, is_open = {}, {}, false
  for _, claim in ipairs(claims) do
    if not granted[claim.tag] then
      is_open = is_open or (call.refreshes and not refusal(claim))
      claim.joined = now - math.floor((claim.waited or 0) * 1000000)
      standing[#standing + 1] = claim
      tags[claim.tag] = claim
    end
  end
  if #standing > 0 then
    redis.call('HSET', CLAIMS .. cluster, me, cmsgpack.pack({ now + call.claim_us, standing }))
  elseif before then
    redis.call('HDEL', CLAIMS .. cluster, me)
  end
  for _, claim in ipairs(before and cmsgpack.unpack(before)[2] or NOTHING) do
    local now_standing = tags[claim.tag]
    if not granted[claim.tag] and (not now_standing or makes_way(claim, now_standing)) then
      tell('', '', cluster)
    end
  end
  return is_open
end

-- the call

redis.call('ZADD', SIDECARS, now + call.lease_us, me)
redis.call('HSET', CALLS, me, call.number)
reap()

for _, id in ipairs(call.release or NOTHING) do
  local q, seconds = let_go(id)
  if q then
    learn(q, seconds)
  end
end

local missing = {}
for _, id in ipairs(call.renew or NOTHING) do
  if redis.call('ZADD', LEASES, 'XX', 'CH', now + call.lease_us, id) == 0 and not redis.call('ZSCORE', LEASES, id) then
    missing[#missing + 1] = id
  end
end

for _, q in ipairs(call.announce or NOTHING) do
  if not redis.call('ZSCORE', LEASES, q.id) then
    hold(q, now - math.floor((q.waited or 0) * 1000000))
  end
end

local answers = {}
local is_recovering = redis.call('EXISTS', RECOVERY) == 1
for at, q in ipairs(call.acquire or NOTHING) do
  answers[at] = is_recovering and { 'recovering' } or ask(q)
end

local is_open = 0
for cluster, claims in pairs(call.claims or NOTHING) do
  if stand(cluster, claims) and not is_recovering then
    is_open = 1
  end
end
if call.waits then
  redis.call('ZADD', WAITING, now + call.claim_us, me)
else
  redis.call('ZREM', WAITING, me)
end

if call.leaves then
  redis.call('ZREM', SIDECARS, me)
  redis.call('HDEL', CALLS, me)
end

redis.call('ZREMRANGEBYSCORE', WAITING, '-inf', now)
local waiting = redis.call('ZCARD', WAITING)
if #news > 0 and waiting > (call.waits and 1 or 0) then
  redis.call('PUBLISH', ARGV[2], cjson.encode({ me, news }))
end

local shown = {}
for _, field in ipairs(call.look or NOTHING) do
  count(field)
end
for field, value in pairs(counts) do
  shown[#shown + 1] = field
  shown[#shown + 1] = value
end
return { 'done', birth, redis.call('ZCARD', SIDECARS), answers, missing, reaped, shown, is_open, is_recovering and 1 or 0 }
