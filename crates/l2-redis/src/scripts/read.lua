-- READ: the record, its remaining TTL, and the id that holds the load lock (false: none).
-- ARGV: nothing, or 1 load lock id, 2 its TTL in ms, 3 load lock to replace, 4 hidden version.
-- A load lock is best effort: a hit must not fail because a full server refuses to store one.
local bytes = redis.call('GET', KEYS[1])
local head = bytes and head_of(bytes)
local id, life, replace, hidden = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if not head or head.load_lock then
  if head and (not id or head.version ~= replace) then return { false, 0, head.version } end
  if not id then return { bytes, bytes and math.max(redis.call('PTTL', KEYS[1]), 0) or 0, false } end
  local done = redis.pcall('SET', KEYS[1], 'CRK\1LF\0\0' .. id, 'PX', life)
  return { false, 0, done.ok and id or false }
end

local ttl = math.max(redis.call('PTTL', KEYS[1]), 0)
if not id then return { bytes, ttl, false } end
local logical, physical = struct.unpack('>I8I8', string.sub(bytes, 49, 64))
-- A remaining TTL above the stored one (by more than 5 s) makes the record's age unknown.
local ageless = ttl > physical + 5000
local stale = head.expired or head.version == hidden or ageless or math.max(physical - ttl, 0) >= logical
if not stale then return { bytes, ttl, false } end

local now, by = now_ms(), head.refresher
if by ~= NOBODY and by ~= id and by ~= replace and head.refresh_ends > now then
  return { bytes, ttl, by }
end
local done = redis.pcall('SETRANGE', KEYS[1], 16, id .. struct.pack('>I8', now + life))
return { bytes, ttl, type(done) == 'number' and id or false }
