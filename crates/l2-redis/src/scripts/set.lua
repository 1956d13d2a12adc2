-- SET: replaces the key, whatever it holds; a command that missed its deadline deletes it instead.
-- Returns whether it replaced (1 or 0), and this server's time.
-- ARGV: 1 record, 2 its TTL in ms, 3 latest time by this server's clock in us or '', 4 channel,
-- 5 message.
announce(ARGV[4], ARGV[5])
local time = redis.call('TIME')
local latest, now = tonumber(ARGV[3]), time[1] * 1000000 + time[2]
if latest and now > latest then
  redis.call('DEL', KEYS[1])
  return { 0, now }
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { 1, now }
