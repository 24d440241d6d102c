"""Clients for the Redis of the settings: a single server or a Cluster, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.errors import SettingsError, TastewaveError
from stream.settings import Settings

_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 5.0


class RedisUnusable(TastewaveError):
    """Redis is not there, or does not let us in."""


def async_client(settings: Settings) -> redis.asyncio.Redis | redis.asyncio.RedisCluster:
    """A client for one event loop, which returns bytes and never retries by itself; close it with aclose().

    Raises SettingsError when the URL cannot be read; connects with the first command.
    """
    kind = redis.asyncio.RedisCluster if settings.redis_cluster else redis.asyncio.Redis
    return _from_url(settings, kind, redis.asyncio.retry.Retry(NoBackoff(), 0))


@contextlib.contextmanager
def sync_client(settings: Settings) -> Iterator[redis.Redis | redis.RedisCluster]:
    """A client for a command, which returns bytes.

    Raises SettingsError when the URL cannot be read, RedisUnusable when Redis fails inside the block.
    """
    try:
        client = _from_url(
            settings, redis.RedisCluster if settings.redis_cluster else redis.Redis, Retry(NoBackoff(), 0)
        )
        with contextlib.closing(client):
            yield client
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        url = urlsplit(settings.redis_url.get_secret_value())
        place = url.path if url.scheme == "unix" else url.netloc.rpartition("@")[2]
        raise RedisUnusable(
            f"Redis at {place} cannot be used ({error}); start it, or correct TASTEWAVE_REDIS_URL"
        ) from error


def _from_url(settings: Settings, kind: Any, retry: Any) -> Any:
    try:
        return kind.from_url(
            settings.redis_url.get_secret_value(),
            retry=retry,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_ANSWER_TIMEOUT_S,
        )
    except (ValueError, TypeError):
        # Their messages may quote a piece of the password.
        raise SettingsError(
            "TASTEWAVE_REDIS_URL cannot be read; use redis://user:password@host:port/number "
            "with : / ? # @ in user and password percent-encoded"
        ) from None
