-- PUT: replaces the record if it has the expected version; 1 if it did, else 0.
-- ARGV: 1 expected version, 2 record, 3 its TTL in ms, 4 channel, 5 message.
local head = stored_head()
if not head or head.version ~= ARGV[1] then return 0 end
announce(ARGV[4], ARGV[5])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
