-- Note up to which time a track was forgotten. The greatest time stands.
-- KEYS  the mark
-- ARGV  the time, ms
-- Returns the time that stands.
local held = tonumber(redis.call('GET', KEYS[1]) or 0)
if not held then return redis.error_reply('WRONGTYPE the mark is not one of tastewave') end
local forgotten_at = math.max(held, tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%.0f', forgotten_at))
return forgotten_at
