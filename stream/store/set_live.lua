-- Point readers at a release.
-- KEYS  the pointer, tw:live
-- ARGV  contract, release, since (ms), and 1 where a release that is live already stays so
-- Returns the release that is live afterwards.
local key, contract, release, since, only_if_none = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local held = redis.call('HGET', key, 'release')
if held and (only_if_none or held == release) then return held end
redis.call('HSET', key, 'contract', contract, 'release', release, 'previous', held or '', 'since', since)
return release
