-- SET: replaces whatever is there; a command that was stuck on its way removes instead (0).
-- ARGV: 1 record, 2 its life in ms, 3 latest time in us or '', 4 channel, 5 message.
announce(ARGV[4], ARGV[5])
local latest, time = tonumber(ARGV[3]), redis.call('TIME')
if latest and time[1] * 1000000 + time[2] > latest then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
