-- Prelude of the ledger scripts. ARGV: 1 TTL of the key in ms, 2 epoch for a new ledger.
-- The ledger is one sorted set, so that a server loses all of it or nothing:
--   'e2' epoch        -1        'f'         the last number issued
--   'i' nonce         -number   'T'         barriers at or below may have been dropped
--   'h'/'s' tag       number    'FH'/'FS'   the floors
--   'H'/'S' register  number    'R'         barriers of tags at or below are in registers
--   'L'               -retention in ms / 2^52: the longest that any node requested
-- A register's name is the last two bytes of its tags' hashes. Folded barriers are older than every
-- barrier of a tag, so the oldest tags begin above 'R', however many registers there are.
-- The 2 is the format version: a ledger of another version does not count, and a new one begins.
-- The retention's score is between -1 and 0, where neither numbers nor ids are: searches for these,
-- in earlier versions too, do not find it. Dividing by a power of two keeps it exact.
-- Ids have negative scores: the newest comes first, and ids and barriers have separate ranges.
-- Numbers are microseconds below 2^53, hence exact as doubles. Scripts compare them as numbers and
-- write them with text(): Lua compares strings by locale and prints large numbers as 1.7e+15.
local K, DRIFT_US, MAX_LIFE_MS = KEYS[1], 300000000, 2 ^ 53

-- Retention of barriers in ms; 0 if no node has requested one. A key of another type is foreign.
local held = redis.pcall('ZSCORE', K, 'L')
held = type(held) == 'string' and -tonumber(held) * 2 ^ 52 or 0

-- The first write is one that even a full server accepts: after it, the server lets the script
-- finish. The ledger's TTL is twice its retention, for every caller.
local function life() return string.format('%.0f', math.max(ARGV[1], math.min(held * 2, MAX_LIFE_MS))) end
redis.call('PEXPIRE', K, life())

local function text(number) return string.format('%.0f', number) end

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Epoch and frontier of the current ledger. A new ledger begins if there is none, if its numbers
-- are too far ahead of the clock, or if the key holds something else.
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

-- The newest id below a number; false if there is none.
local function id_below(number)
  local id = redis.call('ZRANGEBYSCORE', K, '(' .. text(-number), '(-1', 'LIMIT', 0, 1)[1]
  return id and string.sub(id, 2) or false
end

-- Raises the retention to `ms`: the longest request counts, for every caller.
local function keep_for(ms)
  if ms <= held then return end
  held = ms
  redis.call('ZADD', K, string.format('%.17g', -ms / 2 ^ 52), 'L')
  redis.call('PEXPIRE', K, life())
end
