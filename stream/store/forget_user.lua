-- Forget a user up to a time: what is not later goes, and what was computed from it can be written no more.
-- The mark is "<forgotten_at> <revision>": embeddings of that revision or a lower one are refused from now on.
-- KEYS  the forgotten mark, the history, the feedback, and the embedding of every release
-- ARGV  the time, ms
-- Returns the time that stands, how many listens and how much feedback was removed, how many of both are left, and for
-- each release whether an embedding was removed.
local mark, history, feedback, forgotten_at = KEYS[1], KEYS[2], KEYS[3], tonumber(ARGV[1])
local time = redis.call('TIME')
local held = redis.call('GET', mark)
local held_at, floor = string.match(held or '0 0', '^(%d+) (%d+)$')
if not floor then return redis.error_reply('WRONGTYPE the mark is not one of tastewave') end
held_at, floor = tonumber(held_at), tonumber(floor)

local function time_of_listen(_, member) return math.floor(struct.unpack('>I6', member) / 64) end
local function time_of_said(score, member) return math.floor((score * 2 ^ 40 + struct.unpack('>I5', member)) / 32) end

-- Remove the oldest members of a set from a rank on, up to the time. Returns how many they were.
local function remove(key, rank, time_of)
  local members, at = redis.call('ZRANGE', key, rank, -1, 'WITHSCORES'), 1
  while members[at] and time_of(members[at + 1], members[at]) <= forgotten_at do at = at + 2 end
  return at > 1 and redis.call('ZREMRANGEBYRANK', key, rank, rank + (at - 1) / 2 - 1) or 0
end

local listens, said = 0, 0
if forgotten_at > held_at then
  local revision = tonumber(redis.call('ZSCORE', history, 'r') or 0)
  floor = math.max(time[1] * 1000 + math.floor(time[2] / 1000), -revision, floor)
  -- The first write, since Redis refuses a script for want of memory only before it has written.
  redis.call('SET', mark, string.format('%.0f %.0f', forgotten_at, floor))
  listens, said = remove(history, 1, time_of_listen), remove(feedback, 0, time_of_said)
end
local left = redis.call('ZCOUNT', history, 0, '+inf') + redis.call('ZCARD', feedback)
if left == 0 then
  redis.call('DEL', history)
elseif forgotten_at > held_at then
  redis.call('ZADD', history, -floor - 1, 'r')
end
local result = {math.max(forgotten_at, held_at), listens, said, left}
for release = 4, #KEYS do
  local revision = tonumber(redis.call('HGET', KEYS[release], 'revision') or 0)
  result[release + 1] = revision <= floor and redis.call('DEL', KEYS[release]) or 0
end
return result
