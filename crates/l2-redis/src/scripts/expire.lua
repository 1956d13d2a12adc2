-- EXPIRE: marks a value as expired and gives it a new version; deletes anything else.
-- ARGV: 1 version, 2 channel, 3 message.
-- On a full server only DEL is certain to work, and a miss is better than a value that stays fresh.
announce(ARGV[2], ARGV[3])
local bytes = redis.call('GETRANGE', KEYS[1], 0, HEADER_LEN - 1)
local head = head_of(bytes)
if head and not head.load_lock then
  local marked = 'E' .. string.sub(bytes, 7, 8) .. ARGV[1] .. NOBODY .. NOBODY
  local done = redis.pcall('SETRANGE', KEYS[1], 5, marked)
  if type(done) == 'number' then return 1 end
  if not string.find(done.err, 'OOM', 1, true) then return done end
end
return redis.call('DEL', KEYS[1])
