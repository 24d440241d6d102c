-- Write users unless what is held is newer, or the user was forgotten since the histories were read.
-- A greater revision is newer; of one revision, another embedding that was computed later.
-- KEYS  of each user: its embedding, its forgotten mark
-- ARGV  for how many seconds to keep a user; then MessagePack: of each user its revision, its refreshed_at, its embedding,
--       and a list of its other fields and their values
-- Returns for each user 1 where it was written, else the fields and values that are held.
local ttl_s = ARGV[1]
local mark_keys = {}
for at = 2, #KEYS, 2 do mark_keys[at / 2] = KEYS[at] end
local marks = redis.call('MGET', unpack(mark_keys))
local results = {}
for user, new in ipairs(cmsgpack.unpack(ARGV[2])) do
  local key, floor = KEYS[2 * user - 1], 0
  if marks[user] then
    floor = tonumber(string.match(marks[user], '^%d+ (%d+)$'))
    if not floor then return redis.error_reply('WRONGTYPE the mark is not one of tastewave') end
  end
  local revision, refreshed_at, embedding, fields = unpack(new)
  local held = redis.call('HMGET', key, 'revision', 'refreshed_at')
  local held_revision, held_at = tonumber(held[1]) or -1, tonumber(held[2]) or -1
  local newer = revision > held_revision
    or revision == held_revision and refreshed_at >= held_at and embedding ~= redis.call('HGET', key, 'embedding')
  if newer and revision > floor then
    redis.call('HSET', key, 'embedding', embedding, unpack(fields))
    redis.call('EXPIRE', key, ttl_s)
    results[user] = 1
  else
    results[user] = redis.call('HGETALL', key)
  end
end
return results
