-- Add listens and feedback to users, and read what is held of each afterwards.
-- The history holds one member more, 'r', whose score is minus the revision: it stands before all listens, at rank 0.
-- KEYS  of each user: its history, its feedback, its forgotten mark
-- ARGV  how many listens to keep, how much feedback, and for how many seconds; then for each user: how many arguments
--       its listens are, how many its feedback is, and then those, each as score and member
-- Returns for each user: the revision, the time up to which it was forgotten (0 for never), the members of the history,
-- and members and scores of the feedback.
local listens_kept, feedback_kept, ttl_s = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The arguments that are later than the time up to which the user was forgotten.
local function later(forgotten_at, from, to)
  local kept = {}
  for at = from, to, 2 do
    if tonumber(ARGV[at]) > forgotten_at then
      kept[#kept + 1] = ARGV[at]
      kept[#kept + 1] = ARGV[at + 1]
    end
  end
  return kept
end

-- Add arguments to a set, and trim it from a rank on to the newest so many. Returns whether that changed the set.
local function add(key, rank, most, forgotten_at, from, to)
  local entries = forgotten_at > 0 and later(forgotten_at, from, to) or {unpack(ARGV, from, to)}
  if #entries == 0 then return false end
  local oldest = redis.call('ZRANGE', key, rank, rank)[1]
  local changed = redis.call('ZADD', key, 'GT', 'CH', unpack(entries))
  if changed == 0 then return false end
  local removed = redis.call('ZREMRANGEBYRANK', key, rank, -most - 1)
  return changed ~= removed or oldest ~= redis.call('ZRANGE', key, rank, rank)[1]
end

local states, at = {}, 4
for user = 1, #KEYS / 3 do
  local history, feedback, mark = KEYS[3 * user - 2], KEYS[3 * user - 1], redis.call('GET', KEYS[3 * user])
  local forgotten_at, floor = 0, 0
  if mark then
    forgotten_at, floor = string.match(mark, '^(%d+) (%d+)$')
    if not floor then return redis.error_reply('WRONGTYPE the mark is not one of tastewave') end
    forgotten_at, floor = tonumber(forgotten_at), tonumber(floor)
  end
  local first = redis.call('ZRANGE', history, 0, 0, 'WITHSCORES')
  local revision = first[1] == 'r' and -first[2] or 0
  local said_at = at + 2 + ARGV[at]
  local next_at = said_at + ARGV[at + 1]
  local listened = add(history, revision > 0 and 1 or 0, listens_kept, forgotten_at, at + 2, said_at - 1)
  local said = add(feedback, 0, feedback_kept, forgotten_at, said_at, next_at - 1)
  local listens = redis.call('ZRANGE', history, revision > 0 and 1 or 0, -1)
  local feedback_held = redis.call('ZRANGE', feedback, 0, -1, 'WITHSCORES')
  -- Without a revision there is something only where Redis refused the rest of this script after its first write.
  if listened or said or revision == 0 and #listens + #feedback_held > 0 then
    revision = math.max(now, revision + 1, floor + 1)
    redis.call('ZADD', history, -revision, 'r')
    redis.call('EXPIRE', history, ttl_s)
    redis.call('EXPIRE', feedback, ttl_s)
  end
  states[user] = {revision, forgotten_at, listens, feedback_held}
  at = next_at
end
return states
