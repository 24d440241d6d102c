-- Delete the answer to an upload of a track up to the time at which the track was forgotten.
-- KEYS  the track's answer, and its taggram where both are in one slot
-- ARGV  the time, ms
-- Returns whether an answer was there and was deleted.
local event_time = redis.call('HGET', KEYS[1], 'event_time')
if not event_time or tonumber(event_time) > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', unpack(KEYS))
return 1
