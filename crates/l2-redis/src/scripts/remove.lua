-- REMOVE: deletes the key, whatever it holds. ARGV: 1 channel, 2 message.
announce(ARGV[1], ARGV[2])
return redis.call('DEL', KEYS[1])
