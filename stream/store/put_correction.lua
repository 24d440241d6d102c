-- Keep what an editor says of a track, unless a later correction is held; of two of one time, that of the genre whose
-- bytes are greater stands, and of one genre the first.
-- KEYS  the correction
-- ARGV  when it was made (ms), the genre, and who made it
local key, at, genre = KEYS[1], tonumber(ARGV[1]), ARGV[2]

-- Whether a text stands before another. By bytes: Lua itself compares texts by the locale of the server.
local function is_before(one, other)
  for place = 1, math.min(#one, #other) do
    local a, b = string.byte(one, place), string.byte(other, place)
    if a ~= b then return a < b end
  end
  return #one < #other
end

local held = redis.call('HMGET', key, 'at', 'genre')
local held_at = tonumber(held[1] or -1)
if held_at < at or held_at == at and is_before(held[2], genre) then
  redis.call('HSET', key, 'genre', genre, 'by', ARGV[3], 'at', ARGV[1])
end
