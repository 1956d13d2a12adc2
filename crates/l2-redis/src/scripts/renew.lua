-- RENEW: extends a load lock if the caller still holds it; 1 if it did, else 0.
-- ARGV: 1 load lock id, 2 TTL in ms.
local head = stored_head()
if not head then return 0 end
if head.load_lock then
  return head.version == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0
elseif head.refresher == ARGV[1] then
  redis.call('SETRANGE', KEYS[1], 24, struct.pack('>I8', now_ms() + ARGV[2]))
  return 1
end
return 0
