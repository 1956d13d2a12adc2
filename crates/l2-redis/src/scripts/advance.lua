-- ADVANCE: numbers a removal; the same nonce twice gets the same number twice.
-- ARGV: 3 nonce, 4 caller's epoch or '', 5 its frontier, 6 retention in us, 7 most barriers kept,
-- 8 most ids kept, 9 channel or '', 10 and 11 the message around the numbers, 12.. what is removed.
-- Written first, announced after: a lost announcement is healed by the poll, whereas an announced
-- number that is then refused would set every node to repairing.
local now = now_us()
local epoch, frontier = current_life(now)
local id = 'i' .. ARGV[3]

-- Drops ids beyond the newest, barriers older than the retention, and barriers beyond the cap. What
-- is dropped folds into the floor of its kind, in case the clock has jumped ahead.
local function trim()
  local oldest, cap, most_ids = now - ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
  local ids = redis.call('ZCOUNT', K, '-inf', '(-1')
  if ids > most_ids then redis.call('ZREMRANGEBYRANK', K, most_ids, ids - 1) end

  local kept = redis.call('ZCOUNT', K, '(0', '+inf')
  for _, score in ipairs(redis.call('ZMSCORE', K, 'f', 'T', 'FH', 'FS')) do
    if score then kept = kept - 1 end
  end
  local excess = math.max(redis.call('ZCOUNT', K, '(0', '(' .. text(oldest)), kept - cap)
  if excess <= 0 then return end

  local count = math.min(excess + 4, 256)
  local rows = redis.call('ZRANGEBYSCORE', K, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, count)
  local dropped, floors = {}, {}
  for i = 1, #rows, 2 do
    local member, number = rows[i], tonumber(rows[i + 1])
    if #member == 17 then
      if number >= oldest and kept - #dropped <= cap then break end
      dropped[#dropped + 1] = member
      floors['F' .. string.upper(string.sub(member, 1, 1))] = number
      floors.T = number
    end
  end
  if #dropped > 0 then redis.call('ZREM', K, unpack(dropped)) end
  for mark, number in pairs(floors) do redis.call('ZADD', K, 'GT', text(number), mark) end
end

local known = redis.call('ZSCORE', K, id)
local seq = known and -tonumber(known)
local prev = seq and id_below(seq)
if not seq then
  local caller = ARGV[4] == epoch and tonumber(ARGV[5]) or 0
  seq = math.max(now, frontier + 1, caller + 1)
  prev = id_below(seq)
  local scored = { text(seq), 'f', text(-seq), id }
  for i = 12, #ARGV do
    scored[#scored + 1] = text(seq)
    scored[#scored + 1] = ARGV[i]
  end
  redis.call('ZADD', K, unpack(scored))
  trim()
end

local announced = 0
if ARGV[9] ~= '' then
  local numbers = epoch .. (prev or string.rep('\0', 8)) .. struct.pack('>I8', seq)
  local done = redis.pcall('PUBLISH', ARGV[9], ARGV[10] .. numbers .. ARGV[11])
  announced = type(done) == 'number' and 1 or 0
end
return { epoch, prev, text(seq), announced }
