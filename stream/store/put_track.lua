-- Write the answer to an upload unless a better or later one is held.
-- An answer that heard the audio (tagged, abstained) stands above a failure; among equals the later event stands, of two
-- events of one time the one with the greater id, and of one event the first answer. So the order in which answers
-- arrive does not matter. The genre of an editor that the held answer has stays, whatever the new one says
-- (correct_track.lua).
-- KEYS  the track's answer, and its taggram where taggrams are kept
-- ARGV  whether the audio was heard (1 or 0), event_time, event_id, the taggram ('' for none), then the fields and
--       values of the answer
-- Returns the fields and values that are held afterwards.
local key, taggram_key = KEYS[1], KEYS[2]
local heard, event_time, event_id, taggram, first_field = ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3], ARGV[4], 5

-- Whether an id stands before another. By bytes: Lua itself compares texts by the locale of the server.
local function is_before(one, other)
  for at = 1, math.min(#one, #other) do
    local a, b = string.byte(one, at), string.byte(other, at)
    if a ~= b then return a < b end
  end
  return #one < #other
end

local held = redis.call('HMGET', key, 'status', 'event_time', 'event_id', 'reason', 'corrected_at', 'genre')
local keep = false
if held[1] then
  local held_heard = held[1] ~= 'failed' and not held[4]
  local held_time, held_id = tonumber(held[2]), held[3] or ''
  if held_heard ~= heard then
    keep = held_heard
  elseif held_time ~= event_time then
    keep = held_time > event_time
  else
    keep = not is_before(held_id, event_id)
  end
end
if not keep then
  local stale = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do stale[field] = true end
  -- The first write, since Redis refuses a script for want of memory only before it has written.
  redis.call('HSET', key, unpack(ARGV, first_field))
  for at = first_field, #ARGV, 2 do stale[ARGV[at]] = nil end
  for field in pairs(stale) do redis.call('HDEL', key, field) end
  if held[5] then redis.call('HSET', key, 'status', 'corrected', 'genre', held[6], 'corrected_at', held[5]) end
  if taggram_key then
    if taggram == '' then redis.call('DEL', taggram_key) else redis.call('SET', taggram_key, taggram) end
  end
end
return redis.call('HGETALL', key)
