"""Which errors of Redis say that it is away: it cannot be written now, and may be later."""

from __future__ import annotations

import redis.exceptions

_KINDS = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.ClusterError,  # also: redirected too often, since a slot is moving
    redis.exceptions.TryAgainError,
)
_PREFIXES = (
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "LOADING",
    "BUSY",
)


def is_redis_away(error: BaseException) -> bool:
    """Whether a record that met this error should wait and be tried again."""
    if isinstance(error, _KINDS):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and str(error).startswith(_PREFIXES)
