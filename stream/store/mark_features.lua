-- Remember what the features of a track were published from, unless those of a later upload were published since.
-- KEYS  the mark
-- ARGV  event_time of the upload that was heard, and what to remember: a JSON list that begins with event_time
local key, event_time, mark = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local held = redis.call('GET', key)
local held_time = held and tonumber(string.match(held, '^%[(%d+),')) or -1
if held_time <= event_time then redis.call('SET', key, mark) end
