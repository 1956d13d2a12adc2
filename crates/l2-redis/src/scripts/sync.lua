-- SYNC: returns what a node's copy of the ledger lacks.
-- ARGV: 3 its epoch or '', 4 from, 5 its frontier, 6 the newest id it knows or '', 7 page,
-- 8 retention in ms.
-- The standing is 0 current, 1 reload, 2 new epoch. The caller cuts the rows to the page. For this
-- it needs one barrier more than the page, or all of one number (64), plus five members that are
-- no barriers.
local CURRENT, RELOAD, NEW_EPOCH = 0, 1, 2
local now = now_us()

-- Most polls find nothing new: the ledger has the caller's epoch, frontier and newest id. Then three
-- calls are enough, of which the last proves that this server takes writes. Usually the newest id
-- has the frontier's number; only otherwise it must be looked for.
local known = redis.pcall('ZMSCORE', K, 'e2' .. ARGV[3], 'f', 'i' .. ARGV[6], 'L', 'T', 'R', 'FS', 'FH')
local issued = tonumber(known[2] or nil)

local function is_idle()
  if known[1] ~= '-1' or issued ~= tonumber(ARGV[5]) or issued > now + DRIFT_US then return false end
  held_by(known[4])
  if tonumber(ARGV[8]) > held then return false end
  local is_level = ARGV[4] == ARGV[5]
  if is_level and tonumber(known[3] or nil) == -issued then return true end
  -- The first member is the newest id, or the epoch if there is no id, hence no removal.
  local first = redis.call('ZRANGEBYSCORE', K, '-inf', '-1', 'LIMIT', 0, 1)[1]
  return is_level and first == 'i' .. ARGV[6] or ARGV[6] == '' and first == 'e2' .. ARGV[3]
end

if is_idle() then
  renew()
  return {
    CURRENT, ARGV[3], text(issued), text(now), ARGV[6] ~= '' and ARGV[6],
    text(known[5] or 0), text(known[6] or 0), text(known[7] or 0), text(known[8] or 0), {}, {},
  }
end

local epoch, frontier = current_life(now)

-- No member scores above the last number or below its negative. A foreign one there would hide all
-- later loads for ever, so the ledger begins again.
local function any(from, to) return redis.call('ZRANGEBYSCORE', K, from, to, 'LIMIT', 0, 1)[1] end
if any('(' .. text(frontier), '+inf') or any('-inf', '(' .. text(-frontier)) then
  redis.call('DEL', K)
  epoch, frontier = current_life(now)
end

keep_for(tonumber(ARGV[8]))

local caller, from = tonumber(ARGV[5]), tonumber(ARGV[4])

local function standing()
  if ARGV[3] ~= epoch then return NEW_EPOCH end
  if ARGV[6] == '' then return CURRENT end
  -- It must be the newest id up to the caller's frontier, not only a known one: a retry may have
  -- given it a new number, above barriers that the caller missed.
  return id_below(caller + 1) == ARGV[6] and CURRENT or RELOAD
end

local verdict = standing()
if verdict ~= CURRENT then from = 0 end
if verdict ~= NEW_EPOCH and caller > frontier then
  frontier = caller
  redis.call('ZADD', K, text(frontier), 'f')
end
local marks = redis.call('ZMSCORE', K, 'T', 'R', 'FS', 'FH')
local below = '(' .. text(-math.max(from, 1))
return {
  verdict, epoch, text(frontier), text(now), id_below(2 ^ 53),
  text(marks[1] or 0), text(marks[2] or 0), text(marks[3] or 0), text(marks[4] or 0),
  -- Twice as many ids as any node keeps.
  redis.call('ZRANGEBYSCORE', K, '-inf', below, 'WITHSCORES', 'LIMIT', 0, 2048),
  redis.call('ZRANGEBYSCORE', K, '(' .. text(from), '+inf', 'WITHSCORES', 'LIMIT', 0, math.max(ARGV[7], 64) + 6),
}
