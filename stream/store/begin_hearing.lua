-- Note that a process begins to hear a record, unless too many others began and never said that they ended.
-- KEYS  the processes that are hearing the record
-- ARGV  this process, the number of others that are too many, and for how many seconds to remember it
-- Returns how many others there are. With fewer than too many of them, this process is noted.
local others = redis.call('SCARD', KEYS[1]) - redis.call('SISMEMBER', KEYS[1], ARGV[1])
if others < tonumber(ARGV[2]) then
  redis.call('SADD', KEYS[1], ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return others
