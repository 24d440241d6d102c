"""Clients for the Redis of the settings: a single server or a Cluster, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.retry
import redis.cluster
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.errors import SettingsError, TastewaveError
from stream.settings import RedisSettings

_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 5.0
_CONNECTIONS = 1000  # to one server, more than a worker has records in flight: without a free one, redis-py raises


class RedisUnusable(TastewaveError):
    """Redis is not there, or does not let us in."""


def async_client(settings: RedisSettings) -> redis.asyncio.Redis | redis.asyncio.RedisCluster:
    """A client for one event loop, which returns bytes and never retries by itself; close it with aclose().

    Raises SettingsError when the URL cannot be read; connects with the first command.
    """
    options: dict[str, Any] = {
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 0),
        "max_connections": _CONNECTIONS,
        # With no tries left it closes the connection: after a failover the address may be another server's.
        "retry_on_error": [redis.exceptions.ReadOnlyError],
    }
    if settings.cluster:
        # Each slot that has moved is noted by itself: else every fifth cuts all connections, and what is under way.
        return _from_url(settings, _AsyncCluster, reinitialize_steps=0, **options)
    return _from_url(settings, redis.asyncio.Redis, **options)


@contextlib.contextmanager
def sync_client(settings: RedisSettings) -> Iterator[redis.Redis | redis.RedisCluster]:
    """A client for a command, which returns bytes.

    Raises SettingsError when the URL cannot be read, RedisUnusable when Redis fails inside the block.
    """
    try:
        client = _from_url(settings, _Cluster if settings.cluster else redis.Redis, retry=Retry(NoBackoff(), 0))
        with contextlib.closing(client):
            yield client
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        url = urlsplit(settings.url.get_secret_value())
        place = url.path if url.scheme == "unix" else url.netloc.rpartition("@")[2]
        problem = settings.redacted(str(error))
        raise RedisUnusable(
            f"Redis at {place} cannot be used ({problem}); start it, or correct TASTEWAVE_REDIS_URL"
        ) from error


class _AskedNode:
    """A node that a slot is moving to: it answers for the slot only right behind an ASKING on the same connection.

    redis-py's asynchronous Cluster sends its ASKING on one connection and the command on another.
    """

    def __init__(self, node: redis.asyncio.cluster.ClusterNode) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def execute_command(self, *args: Any, asking: bool = False, **options: Any) -> Any:  # noqa: ARG002
        if args == ("ASKING",):
            return None
        command = redis.asyncio.cluster.PipelineCommand(1, *args, **options)
        await self._node.execute_pipeline([redis.asyncio.cluster.PipelineCommand(0, "ASKING"), command])
        if isinstance(command.result, Exception):
            raise command.result
        return command.result


class _AsyncCluster(redis.asyncio.RedisCluster):
    """Follows a slot that is moving, also to a node that has no slot yet."""

    def get_node(self, host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        node = super().get_node(host, port, node_name)
        if node_name is None:
            return node
        if node is None:
            host, _, number = node_name.rpartition(":")
            manager = self.nodes_manager
            node = redis.asyncio.cluster.ClusterNode(
                host, int(number), redis.cluster.PRIMARY, **manager.connection_kwargs
            )
            manager.set_nodes(manager.nodes_cache, {node.name: node})
        return _AskedNode(node)


class _Cluster(redis.RedisCluster):
    """Follows a slot that is moving, also to a node that has no slot yet."""

    def get_node(self, host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        node = super().get_node(host, port, node_name)
        if node is None and node_name:
            host, _, number = node_name.rpartition(":")
            node = redis.cluster.ClusterNode(host, int(number), redis.cluster.PRIMARY)
        return node


def _from_url(settings: RedisSettings, kind: Any, **options: Any) -> Any:
    url = settings.url.get_secret_value()
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and "@" in f"{parts.path}{parts.query}{parts.fragment}":
            raise ValueError("of an unencoded password, redis-py would take the beginning for the host")
        return kind.from_url(
            url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_ANSWER_TIMEOUT_S,
            **options,
        )
    except (ValueError, TypeError):
        # Their messages may quote a piece of the password.
        raise SettingsError(
            "TASTEWAVE_REDIS_URL cannot be read; use redis://user:password@host:port/number "
            "with : / ? # @ in user and password percent-encoded"
        ) from None
