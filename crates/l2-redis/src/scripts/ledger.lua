-- What the ledger scripts share. ARGV: 1 life of the key in ms, 2 epoch to begin if there is none.
-- The ledger is one sorted set, so that it is lost as a whole or not at all:
--   'e2' epoch        -1        'f'         the last number issued
--   'i' nonce         -number   'T'         barriers at or below may have been dropped
--   'h'/'s' tag       number    'FH'/'FS'   the floors
--   'H'/'S' register  number    'R'         barriers of tags at or below are in registers
--   'L'               -retention in ms / 2^52: the longest that anybody asked for
-- A register is the last two bytes of its tags. What is folded into it is older than every barrier
-- of a tag, so the oldest tags begin above 'R', however many registers there are.
-- The 2 is the version of all this: a ledger of another version is none, and a new life begins.
-- The retention is between -1 and 0, where neither numbers nor ids are: what looks for these, in earlier
-- versions too, does not meet it. As a power of two divides it, it is exact.
-- Ids are negative: the newest comes first, and ids and barriers are ranges of their own.
-- Numbers are microseconds, below 2^53, hence exact as doubles. They are compared as numbers and
-- written with text(): Lua compares strings by locale and prints large numbers as 1.7e+15.
local K, DRIFT_US, MAX_LIFE_MS = KEYS[1], 300000000, 2 ^ 53

-- How long barriers are kept; 0 if nobody has said so. A key of another type is none of ours.
local held = redis.pcall('ZSCORE', K, 'L')
held = type(held) == 'string' and -tonumber(held) * 2 ^ 52 or 0

-- A write that no full server refuses comes first: after it, the server lets the script finish. The
-- ledger's life is twice its retention, whoever calls.
local function life() return string.format('%.0f', math.max(ARGV[1], math.min(held * 2, MAX_LIFE_MS))) end
redis.call('PEXPIRE', K, life())

local function text(number) return string.format('%.0f', number) end

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Epoch and frontier of the current life. A new one begins where there is none, where the numbers
-- have outrun the clock, and where something else has taken the key.
local function current_life(now)
  local epoch = redis.call('TYPE', K).ok == 'zset' and redis.call('ZRANGEBYSCORE', K, -1, -1)[1]
  local frontier = epoch and tonumber(redis.call('ZSCORE', K, 'f') or nil)
  if frontier and #epoch == 10 and string.sub(epoch, 1, 2) == 'e2' and frontier <= now + DRIFT_US then
    return string.sub(epoch, 3), frontier
  end
  redis.call('DEL', K)
  redis.call('ZADD', K, -1, 'e2' .. ARGV[2], text(now), 'f')
  held = 0
  redis.call('PEXPIRE', K, life())
  return ARGV[2], now
end

-- The newest id below a number (false: none).
local function id_below(number)
  local id = redis.call('ZRANGEBYSCORE', K, '(' .. text(-number), '(-1', 'LIMIT', 0, 1)[1]
  return id and string.sub(id, 2) or false
end

-- Barriers are kept as long as the one who asks for most needs them, whoever calls.
local function keep_for(ms)
  if ms <= held then return end
  held = ms
  redis.call('ZADD', K, string.format('%.17g', -ms / 2 ^ 52), 'L')
  redis.call('PEXPIRE', K, life())
end
