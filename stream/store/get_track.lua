-- KEYS  the track's answer, and what its features were published from (only where it shares the slot of the first)
-- Returns the fields of the answer, and what the features were published from ('' if nothing).
return {redis.call('HGETALL', KEYS[1]), KEYS[2] and redis.call('GET', KEYS[2]) or ''}
