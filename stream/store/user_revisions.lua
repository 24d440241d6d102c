-- KEYS  the embeddings of users
-- Returns the revision of each as text; an empty one where nothing is held.
local revisions = {}
for user, key in ipairs(KEYS) do revisions[user] = redis.call('HGET', key, 'revision') or '' end
return revisions
