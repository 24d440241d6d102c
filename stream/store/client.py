"""Clients for the Redis of the settings: a single server or a Cluster, over TCP, TLS or a Unix socket.

The Cluster clients override private methods of redis-py, which is therefore pinned exactly. Each override says why it
is there; tests/integration/test_redis_faults.py holds that a slot may move to another node at any moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import hiredis
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
from stream.store.away import redis_advice

_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 5.0
_CONNECTIONS = 1000  # to one server, more than a worker has records in hand: without a free one, redis-py raises


class RedisUnusable(TastewaveError):
    """Redis does not answer, or refuses this client."""


def async_client(settings: RedisSettings) -> redis.asyncio.Redis | redis.asyncio.RedisCluster:
    """A client for one event loop. It returns bytes and never retries by itself; close it with aclose().

    It connects with the first command. Raises SettingsError when the URL cannot be read.
    """
    options: dict[str, Any] = {
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 0),
        "max_connections": _CONNECTIONS,
        # Closes the connection after a READONLY, since no tries are left: after a failover the next connection to
        # the same address may reach the new primary.
        "retry_on_error": [redis.exceptions.ReadOnlyError],
    }
    if settings.cluster:
        # redis-py would learn the whole Cluster anew at every fifth slot that has moved, and for that cut all
        # connections with the commands on them. With 0 it only notes the slot.
        return _from_url(settings, _AsyncCluster, reinitialize_steps=0, **options)
    # RESP3 makes a list of each member of a sorted set with its score, which costs a batch of users a third more CPU.
    client = _from_url(settings, redis.asyncio.Redis, protocol=2, **options)
    client.connection_pool.connection_class = _PACKING[client.connection_pool.connection_class]
    return client


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
        raise unusable(settings, error) from error


def unusable(settings: RedisSettings, error: Exception) -> RedisUnusable:
    """An error of Redis as one sentence that names the server and says what to do."""
    url = urlsplit(settings.url.get_secret_value())
    place = url.path if url.scheme == "unix" else url.netloc.rpartition("@")[2]
    advice = redis_advice(error) or "start it, or correct TASTEWAVE_REDIS_URL"
    return RedisUnusable(f"Redis at {place} cannot be used ({settings.redacted(str(error))}); {advice}")


class _Packing:
    """Has hiredis pack commands. Where redis-py is asynchronous it does so itself, and takes five times as long."""

    def pack_command(self, *args: Any) -> list[bytes]:
        try:
            return [hiredis.pack_command((*args[0].split(), *args[1:]))]  # "SCRIPT LOAD" is two words
        except TypeError as error:
            raise redis.exceptions.DataError(str(error)) from error


class _Connection(_Packing, redis.asyncio.Connection):
    pass


class _SSLConnection(_Packing, redis.asyncio.SSLConnection):
    pass


class _UnixConnection(_Packing, redis.asyncio.UnixDomainSocketConnection):
    pass


_PACKING = {kind.__mro__[2]: kind for kind in (_Connection, _SSLConnection, _UnixConnection)}


class _AskedNode:
    """A node that a slot may be moving to.

    While a slot moves, its new node answers a command only directly after an ASKING on the same connection. redis-py's
    asynchronous Cluster client takes a connection from the pool for the ASKING and another one for the command. Here
    the ASKING is dropped when it comes, and sent together with the command.
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
    """A Cluster client that follows a slot while it moves."""

    def get_node(self, host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        """Overridden: redis-py returns None for a node without slots, such as one that has just joined."""
        node = super().get_node(host, port, node_name)
        if node_name is None:
            return node
        if node is None:
            host, _, number = node_name.rpartition(":")
            manager = self.nodes_manager
            node = redis.asyncio.cluster.ClusterNode(
                host, int(number), redis.cluster.PRIMARY, **manager.connection_kwargs
            )
            manager.set_nodes(manager.nodes_cache, {node.name: node})  # the client looks nodes up there, by name
        return _AskedNode(node)


class _Cluster(redis.RedisCluster):
    """A Cluster client that follows a slot while it moves."""

    def get_node(self, host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        """Overridden as in _AsyncCluster."""
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
            raise ValueError("redis-py would take the beginning of an unencoded password for the host")
        if not settings.cluster:
            _try_options(url)
        return kind.from_url(
            url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_ANSWER_TIMEOUT_S,
            **options,
        )
    except OSError as error:
        raise SettingsError(
            f"TLS to Redis cannot be set up ({error.strerror or type(error).__name__}); "
            "check the files that TASTEWAVE_REDIS_URL names"
        ) from None
    except (ValueError, TypeError, redis.RedisError):
        # Their messages may quote a piece of the password.
        raise SettingsError(
            "TASTEWAVE_REDIS_URL cannot be read; use redis://user:password@host:port/number "
            "with : / ? # @ in user and password percent-encoded"
        ) from None


def _try_options(url: str) -> None:
    """Make a connection without connecting it. redis-py would read the options of the URL with the first command."""
    connection = redis.asyncio.ConnectionPool.from_url(url).make_connection()
    if isinstance(connection, redis.asyncio.SSLConnection):
        connection.ssl_context.get()
