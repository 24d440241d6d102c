-- Give an answer the genre of an editor, unless it has that of a later correction; of two of one time, that of the genre
-- whose bytes are greater stands.
-- KEYS  the track's answer
-- ARGV  when it was corrected (ms), and the genre
-- Returns the fields and values that are held afterwards; none where there is no answer.
local key, at, genre = KEYS[1], tonumber(ARGV[1]), ARGV[2]

-- Whether a text stands before another. By bytes: Lua itself compares texts by the locale of the server.
local function is_before(one, other)
  for place = 1, math.min(#one, #other) do
    local a, b = string.byte(one, place), string.byte(other, place)
    if a ~= b then return a < b end
  end
  return #one < #other
end

local held = redis.call('HMGET', key, 'status', 'corrected_at', 'genre')
if held[1] then
  local held_at = tonumber(held[2] or -1)
  if held_at < at or held_at == at and is_before(held[3], genre) then
    redis.call('HSET', key, 'status', 'corrected', 'genre', genre, 'corrected_at', ARGV[1])
  end
end
return redis.call('HGETALL', key)
