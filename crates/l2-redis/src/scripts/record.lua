-- Prelude of the record scripts. crinkle-core, src/l2/record.rs, describes the bytes; offsets there
-- start at 0, string.sub starts at 1. Scripts compare versions as bytes, for equality only.
local HEADER_LEN = 84
local NOBODY = string.rep('\0', 8)

-- Decodes the head of a record; nil for anything else.
local function head_of(bytes)
  local kind, state = string.sub(bytes, 5, 5), string.sub(bytes, 6, 6)
  if string.sub(bytes, 1, 4) ~= 'CRK\1' or (state ~= 'F' and state ~= 'E') then return nil end
  if kind == 'L' and #bytes >= 16 then
    return { load_lock = true, version = string.sub(bytes, 9, 16) }
  elseif kind == 'V' and #bytes >= HEADER_LEN then
    return {
      version = string.sub(bytes, 9, 16),
      expired = state == 'E',
      refresher = string.sub(bytes, 17, 24),
      refresh_ends = struct.unpack('>I8', string.sub(bytes, 25, 32)),
    }
  end
end

local function stored_head()
  return head_of(redis.call('GETRANGE', KEYS[1], 0, HEADER_LEN - 1))
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function announce(channel, message)
  if channel ~= '' then redis.call('PUBLISH', channel, message) end
end
