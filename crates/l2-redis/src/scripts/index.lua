-- INDEX: remembers a key under a tag. ARGV: 1 the key, 2 how many at most, 3 TTL in ms.
-- The set is as old as its youngest member; what it has no room for ends by itself.
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return redis.call('SISMEMBER', KEYS[1], ARGV[1])
end
redis.call('SADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
