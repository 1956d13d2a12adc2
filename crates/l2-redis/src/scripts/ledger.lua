-- What the ledger scripts share. ARGV: 1 life of the key in ms, 2 epoch to begin if there is none.
-- The ledger is one sorted set, so that it is lost as a whole or not at all:
--   'e2' epoch        -1        'f'         the last number issued
--   'i' nonce         -number   'T'         barriers at or below may have been dropped
--   'h'/'s' tag       number    'FH'/'FS'   the floors
--   'H'/'S' register  number    'R'         barriers of tags at or below are in registers
-- A register is the last two bytes of its tags. What is folded into it is older than every barrier
-- of a tag, so the oldest tags begin above 'R', however many registers there are.
-- The 2 is the version of all this: a ledger of another version is none, and a new life begins.
-- Ids are negative: the newest comes first, and ids and barriers are ranges of their own.
-- Numbers are microseconds, below 2^53, hence exact as doubles. They are compared as numbers and
-- written with text(): Lua compares strings by locale and prints large numbers as 1.7e+15.
local K, DRIFT_US = KEYS[1], 300000000

-- A write that no full server refuses comes first: after it, the server lets the script finish.
redis.call('PEXPIRE', K, ARGV[1])

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
  redis.call('PEXPIRE', K, ARGV[1])
  return ARGV[2], now
end

-- The newest id below a number (false: none).
local function id_below(number)
  local id = redis.call('ZRANGEBYSCORE', K, '(' .. text(-number), '(-1', 'LIMIT', 0, 1)[1]
  return id and string.sub(id, 2) or false
end
