-- FREE: frees the memory of a value that a removal hides. Returns 1 if the value is gone, 0 if the
-- record is newer than the removal, or has another version than the caller read.
-- ARGV: 1 epoch of the removal, 2 its number, 3 version of the record, all big-endian.
local head = redis.call('GETRANGE', KEYS[1], 0, HEADER_LEN - 1)
if #head < HEADER_LEN or string.sub(head, 1, 5) ~= 'CRK\1V' then return 1 end
local stamp = struct.unpack('>I8', string.sub(head, 41, 48))
if string.sub(head, 33, 40) ~= ARGV[1] or stamp >= struct.unpack('>I8', ARGV[2]) then return 0 end
if string.sub(head, 9, 16) ~= ARGV[3] then return 0 end
return redis.call('UNLINK', KEYS[1])
