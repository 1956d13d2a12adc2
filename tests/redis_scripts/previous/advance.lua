-- ADVANCE: numbers a removal. A repeated nonce gets the same number again.
-- ARGV: 3 nonce, 4 caller's epoch or '', 5 its frontier, 6 retention in ms, 7 most barriers kept,
-- 8 most ids kept, 9 channel or '', 10 and 11 the message around the numbers, 12.. the members.
-- It writes first and publishes afterwards: the poll makes up for a lost message. A published
-- number that the server then refused would make every node resync.
-- Calls from a script dominate the cost, so calls are combined, and skipped where they have nothing
-- to do.
local now, epoch, id = now_us(), ARGV[4], 'i' .. ARGV[3]

-- The score of the caller's epoch, if it is current; the frontier; the number of the id, if known.
local known = redis.pcall('ZMSCORE', K, 'e2' .. epoch, 'f', id)
local frontier = tonumber(known[2] or nil)
if not known[1] or not frontier or frontier > now + DRIFT_US then
  epoch, frontier = current_life(now)
  known = { true, true, redis.call('ZSCORE', K, id) }
end

keep_for(tonumber(ARGV[6]))

-- The oldest barriers in a range of numbers: members and numbers, fewer than 256, no number split.
local function oldest(from, to)
  local rows = redis.call('ZRANGEBYSCORE', K, from, to, 'WITHSCORES', 'LIMIT', '0', '256')
  local members, numbers, cut = {}, {}, #rows == 512 and rows[512]
  for i = 1, #rows, 2 do
    if #rows[i] > 2 and rows[i + 1] ~= cut then
      members[#members + 1], numbers[#numbers + 1] = rows[i], tonumber(rows[i + 1])
    end
  end
  return members, numbers
end

-- Removes members and raises the members that they are folded into.
local function fold(gone, raised)
  if #gone > 0 then redis.call('ZREM', K, unpack(gone)) end
  local scored = {}
  for member, number in pairs(raised) do
    scored[#scored + 1] = text(number)
    scored[#scored + 1] = member
  end
  if #scored > 0 then redis.call('ZADD', K, 'GT', unpack(scored)) end
end

-- Drops the oldest ids beyond the limit, and barriers older than the retention. The barriers raise
-- the floor of their kind, in case the clock has jumped ahead.
local function trim(card)
  local most_ids = tonumber(ARGV[8])
  local ids = card > most_ids and redis.call('ZCOUNT', K, '-inf', '(-1') or 0
  if ids > most_ids then redis.call('ZREMRANGEBYRANK', K, most_ids, ids - 1) end
  if held == 0 then return end
  local members, numbers = oldest('(0', '(' .. text(math.max(now - held * 1000, 0)))
  local raised = {}
  for i, member in ipairs(members) do
    raised['F' .. string.upper(string.sub(member, 1, 1))], raised.T = numbers[i], numbers[i]
  end
  fold(members, raised)
end

-- Folds the oldest tags into their registers, number by number, until at most `cap` are left.
local function fold_oldest()
  local marks = redis.call('ZMSCORE', K, 'R', 'f', 'T', 'FH', 'FS')
  local folded, cap = tonumber(marks[1] or 0), tonumber(ARGV[7])
  local above = '(' .. text(folded)
  local kept = redis.call('ZCOUNT', K, above, '+inf')
  for i = 2, 5 do
    if tonumber(marks[i] or 0) > folded then kept = kept - 1 end
  end
  if kept <= cap then return end
  local members, numbers = oldest(above, '+inf')
  local gone, raised = {}, {}
  for i, member in ipairs(members) do
    if kept <= cap and numbers[i] ~= raised.R then break end
    if #member == 17 then
      gone[#gone + 1] = member
      raised[string.upper(string.sub(member, 1, 1)) .. string.sub(member, -2)] = numbers[i]
    end
    raised.R, kept = numbers[i], kept - 1
  end
  fold(gone, raised)
end

local seq = known[3] and -tonumber(known[3])
local number, prev = seq and text(seq), seq and id_below(seq)
if not seq then
  local caller = ARGV[4] == epoch and tonumber(ARGV[5]) or 0
  seq = math.max(now, frontier + 1, caller + 1)
  number = text(seq)
  -- The first member is the newest id, or the epoch if there is no id.
  local newest = redis.call('ZRANGEBYSCORE', K, '-inf', '-1', 'LIMIT', '0', '1')[1]
  prev = string.sub(newest, 1, 1) == 'i' and string.sub(newest, 2)
  local scored = { number, 'f', '-' .. number, id }
  for i = 12, #ARGV do
    scored[#scored + 1] = number
    scored[#scored + 1] = ARGV[i]
  end
  redis.call('ZADD', K, unpack(scored))
  local card = redis.call('ZCOUNT', K, '-inf', '+inf')
  trim(card)
  if card > tonumber(ARGV[7]) then fold_oldest() end
end

local announced = 0
if ARGV[9] ~= '' then
  local numbers = epoch .. (prev or string.rep('\0', 8)) .. struct.pack('>I8', seq)
  local done = redis.pcall('PUBLISH', ARGV[9], ARGV[10] .. numbers .. ARGV[11])
  announced = type(done) == 'number' and 1 or 0
end
return { epoch, prev, number, announced }
