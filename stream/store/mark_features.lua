-- Remember what the features of a track were published from, unless those of a later upload were published since.
-- KEYS  the mark
-- ARGV  event_time of the upload that was heard, and what to remember: a JSON list that begins with event_time
local held = redis.call('GET', KEYS[1])
local held_time = held and tonumber(string.match(held, '^%[(%d+),')) or -1
if held_time <= tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[2]) end
