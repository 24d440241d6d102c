-- Remember what the features of a track were published from, unless those of a later event were published since.
-- KEYS  the track's answer, and what its features were published from (only where it shares the slot of the first)
-- ARGV  event_time of the upload that was heard, and the mark: 'event_time content'
-- Returns what is held: the fields of the answer.
if KEYS[2] then
  local held = redis.call('GET', KEYS[2])
  local held_time = held and tonumber(string.match(held, '^(%d+) ')) or -1
  if held_time <= tonumber(ARGV[1]) then redis.call('SET', KEYS[2], ARGV[2]) end
end
return redis.call('HGETALL', KEYS[1])
