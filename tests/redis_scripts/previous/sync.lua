-- SYNC: returns what a node's copy of the ledger lacks.
-- ARGV: 3 its epoch or '', 4 from, 5 its frontier, 6 the newest id it knows or '', 7 page,
-- 8 retention in ms.
-- The standing is 0 current, 1 reload, 2 new epoch. The caller cuts the rows to the page. For this
-- it needs one barrier more than the page, or all of one number (64), plus five members that are
-- no barriers.
local CURRENT, RELOAD, NEW_EPOCH = 0, 1, 2
local now = now_us()
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
