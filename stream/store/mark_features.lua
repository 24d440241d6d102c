-- Remember what the features of a track were published from, unless those of a later upload were published since.
-- KEYS  what they were published from: 'event_time content'
-- ARGV  event_time of the upload that was heard, and the content
local key, event_time, content = KEYS[1], ARGV[1], ARGV[2]
local held = redis.call('GET', key)
local held_time = held and tonumber(string.match(held, '^(%d+) ')) or -1
if held_time <= tonumber(event_time) then redis.call('SET', key, event_time .. ' ' .. content) end
