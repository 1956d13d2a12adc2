-- INDEX: adds a key to the set of a tag. ARGV: 1 the key, 2 most keys per set, 3 TTL in ms.
-- The set's TTL is the longest of its members'. A key that does not fit stays until its TTL ends.
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return redis.call('SISMEMBER', KEYS[1], ARGV[1])
end
redis.call('SADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
