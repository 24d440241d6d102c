-- Delete what an editor said of a track up to the time at which the track was forgotten.
-- KEYS  the correction
-- ARGV  the time, ms
local at = redis.call('HGET', KEYS[1], 'at')
if at and tonumber(at) <= tonumber(ARGV[1]) then redis.call('DEL', KEYS[1]) end
