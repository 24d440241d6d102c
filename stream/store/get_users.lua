-- KEYS  the embeddings of users
-- Returns the fields and values of each.
local users = {}
for user, key in ipairs(KEYS) do users[user] = redis.call('HGETALL', key) end
return users
