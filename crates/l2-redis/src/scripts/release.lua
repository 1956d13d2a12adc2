-- RELEASE: releases a load lock if the caller still holds it. ARGV: 1 load lock id.
local head = stored_head()
if not head then return 0 end
if head.load_lock then
  return head.version == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
elseif head.refresher == ARGV[1] then
  return redis.call('SETRANGE', KEYS[1], 16, NOBODY .. NOBODY)
end
return 0
