-- Add listens and feedback to users.
-- The history holds one member more, 'r', whose score is minus the revision: it stands before all listens, at rank 0.
-- Listens have the score 0, and their members begin with the time. models/history.py tells what the members are.
-- KEYS  of each user: its history, its feedback, its forgotten mark
-- ARGV  how many listens to keep, how much feedback, for how many seconds, and whether to return what is held (1 or 0);
--       then MessagePack: of each user its listens and its feedback, each a list of scores and members
-- Returns for each user: the revision, the time up to which it was forgotten (0 for never) and, where asked, the members
-- of the history, and members and scores of the feedback.
local listens_kept, feedback_kept, ttl_s, reads = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mark_keys = {}
for at = 3, #KEYS, 3 do mark_keys[at / 3] = KEYS[at] end
local marks = redis.call('MGET', unpack(mark_keys))

local function time_of_listen(_, member) return math.floor(struct.unpack('>I6', member) / 64) end
local function time_of_said(score, member) return math.floor((score * 2 ^ 40 + struct.unpack('>I5', member)) / 32) end

-- Those that are later than the time up to which the user was forgotten.
local function later(time_of, forgotten_at, entries)
  local kept = {}
  for at = 1, #entries, 2 do
    if time_of(entries[at], entries[at + 1]) > forgotten_at then
      kept[#kept + 1] = entries[at]
      kept[#kept + 1] = entries[at + 1]
    end
  end
  return kept
end

-- Trim a history to the newest so many. Returns whether it is another than before: as many may have gone as came, all of
-- them older than what is kept.
local function trim(history, most, came, oldest)
  local gone = redis.call('ZREMRANGEBYRANK', history, 1, -most - 1)
  return came ~= gone or not redis.call('ZSCORE', history, oldest)
end

-- Keep the latest of each kind and track alone.
local function drop_superseded(feedback)
  local members, seen, gone = redis.call('ZRANGE', feedback, 0, -1), {}, {}
  for place = #members, 1, -1 do
    local member = members[place]
    local statement = string.byte(member, 5) % 32 .. ' ' .. string.sub(member, 6)
    if seen[statement] then gone[#gone + 1] = member end
    seen[statement] = true
  end
  if #gone > 0 then redis.call('ZREM', feedback, unpack(gone)) end
end

local states = {}
for user, change in ipairs(cmsgpack.unpack(ARGV[5])) do
  local history, feedback = KEYS[3 * user - 2], KEYS[3 * user - 1]
  local forgotten_at, floor = 0, 0
  if marks[user] then
    forgotten_at, floor = string.match(marks[user], '^(%d+) (%d+)$')
    if not floor then return redis.error_reply('WRONGTYPE the mark is not one of tastewave') end
    forgotten_at, floor = tonumber(forgotten_at), tonumber(floor)
  end
  local listens, said = change[1], change[2]
  if forgotten_at > 0 then
    listens, said = later(time_of_listen, forgotten_at, listens), later(time_of_said, forgotten_at, said)
  end
  local held = redis.call('ZRANGE', history, 0, 1, 'WITHSCORES')
  local revision = held[1] == 'r' and -held[2] or 0
  local following, changed = math.max(now, revision + 1, floor + 1), false
  if #listens > 0 then
    local came = redis.call('ZADD', history, -following, 'r', unpack(listens))
    changed = revision == 0 or came > 0 and trim(history, listens_kept, came, held[3])
  end
  if #said > 0 then
    local members = {}
    for place = 2, #said, 2 do members[place / 2] = said[place] end
    local before = redis.call('ZMSCORE', feedback, unpack(members))
    if redis.call('ZADD', feedback, 'GT', 'CH', unpack(said)) > 0 then
      drop_superseded(feedback)
      redis.call('ZREMRANGEBYRANK', feedback, 0, -feedback_kept - 1)
      for place, score in ipairs(redis.call('ZMSCORE', feedback, unpack(members))) do
        changed = changed or score and score ~= before[place]
      end
    end
  end
  -- Feedback without a revision is there where Redis refused the rest of this script after its first write.
  if changed or revision == 0 and redis.call('EXISTS', history, feedback) > 0 then
    if #listens == 0 then redis.call('ZADD', history, -following, 'r') end
    redis.call('EXPIRE', history, ttl_s)
    redis.call('EXPIRE', feedback, ttl_s)
    revision = following
  elseif #listens > 0 then
    redis.call('ZADD', history, -revision, 'r')
  end
  states[user] = {revision, forgotten_at}
  if reads then
    states[user][3] = redis.call('ZRANGE', history, 1, -1)
    states[user][4] = redis.call('ZRANGE', feedback, 0, -1, 'WITHSCORES')
  end
end
return states
