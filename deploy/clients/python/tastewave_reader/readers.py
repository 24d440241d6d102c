"""The readers: one for blocking clients, one for asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tastewave_reader.errors import ContractBroken, ReaderError, Unavailable
from tastewave_reader.steps import TRACKS, USERS, Plan, Request, Rows, Steps

if TYPE_CHECKING:
    from typing import Self

    from tastewave_reader.rows import Tracks, Users, Values


class Reader:
    """Reads tracks and users of the live release.

        reader = Reader.from_url("redis://localhost:6379", timeout_s=0.2)
        tracks = reader.tracks(["t1", "t2"])
        tracks.genre, tracks.confidence   # ("jazz", None), array([0.83, nan])

    A read takes one round trip for each 500 ids, on a Cluster one to each node. All of its answers are of one release.
    A new live release is noticed within a second. A reader may be used by several threads, as its client may.

    Args:
        client: a redis.Redis or redis.RedisCluster that gives bytes, as they do unless told otherwise.
        key_prefix: TASTEWAVE_REDIS_KEY_PREFIX of the workers.
        dim: dimensions of the taste space.
    """

    def __init__(self, client: Any, *, key_prefix: str = "tw", dim: int = 40) -> None:
        self._client = client
        self._plan = Plan(key_prefix=key_prefix, dim=dim)

    @classmethod
    def from_url(
        cls, url: str, *, cluster: bool = False, timeout_s: float = 0.5, key_prefix: str = "tw", dim: int = 40
    ) -> Self:
        """A reader with a client of its own.

            Reader.from_url("rediss://reader:secret@redis.example:6380", timeout_s=0.1)

        Args:
            url: redis:// or rediss:// (TLS), with user and password where Redis asks for them.
            cluster: whether it is a node of a Redis Cluster.
            timeout_s: for connecting, and for each reply.
            key_prefix: as in Reader.
            dim: as in Reader.
        """
        import redis  # its import takes longer than all of this package

        kind: Any = redis.RedisCluster if cluster else redis.Redis
        with _told():
            client = kind.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        return cls(client, key_prefix=key_prefix, dim=dim)

    def tracks(self, ids: Sequence[str]) -> Tracks:
        """Tracks by their ids; see tastewave_reader.Tracks.

        Raises:
            ValueError: an id is empty, or longer than 256 bytes.
            ReaderError: as listed in tastewave_reader.
        """
        return self._run(self._plan.read(TRACKS, ids))

    def users(self, ids: Sequence[str]) -> Users:
        """Users by their ids; see tastewave_reader.Users. Raises as `tracks` does."""
        return self._run(self._plan.read(USERS, ids))

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps[Rows]) -> Rows:
        try:
            request = next(steps)
            while True:
                with _told():
                    values = self._fetch(request)
                request = steps.send(values)
        except StopIteration as done:
            return done.value

    def _fetch(self, request: Request) -> Sequence[Values]:
        return _asked(self._client, request).execute()


class AsyncReader:
    """The same for asyncio.

        async with AsyncReader.from_url("redis://localhost:6379") as reader:
            users = await reader.users(["ana", "ben"])

    Args:
        client: a redis.asyncio.Redis or RedisCluster that gives bytes.
        key_prefix: as in Reader.
        dim: as in Reader.
    """

    def __init__(self, client: Any, *, key_prefix: str = "tw", dim: int = 40) -> None:
        self._client = client
        self._plan = Plan(key_prefix=key_prefix, dim=dim)

    @classmethod
    def from_url(
        cls, url: str, *, cluster: bool = False, timeout_s: float = 0.5, key_prefix: str = "tw", dim: int = 40
    ) -> Self:
        """A reader with a client of its own; arguments as those of Reader.from_url."""
        import redis.asyncio

        kind: Any = redis.asyncio.RedisCluster if cluster else redis.asyncio.Redis
        client = kind.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        return cls(client, key_prefix=key_prefix, dim=dim)

    async def tracks(self, ids: Sequence[str]) -> Tracks:
        """Tracks by their ids, as Reader.tracks."""
        return await self._run(self._plan.read(TRACKS, ids))

    async def users(self, ids: Sequence[str]) -> Users:
        """Users by their ids, as Reader.users."""
        return await self._run(self._plan.read(USERS, ids))

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[Rows]) -> Rows:
        try:
            request = next(steps)
            while True:
                with _told():
                    values = await self._fetch(request)
                request = steps.send(values)
        except StopIteration as done:
            return done.value

    async def _fetch(self, request: Request) -> Sequence[Values]:
        return await _asked(self._client, request).execute()


def _asked(client: Any, request: Request) -> Any:
    """A pipeline with the request."""
    pipeline = client.pipeline(transaction=False)
    for key in request.keys:
        pipeline.execute_command("HMGET", key, *request.fields)
    return pipeline


@contextmanager
def _told() -> Iterator[None]:
    """Errors of redis-py as those of this package."""
    try:
        yield
    except ReaderError:
        raise
    except Exception as error:
        import redis.exceptions

        if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
            raise Unavailable(f"Redis did not answer in time ({error}); look at Redis, or raise timeout_s") from error
        if isinstance(error, redis.exceptions.ResponseError) and "WRONGTYPE" in str(error):
            raise ContractBroken(f"a key of tastewave is of another type ({error}); check key_prefix") from error
        if isinstance(error, redis.exceptions.RedisError | OSError):
            raise Unavailable(f"Redis cannot be asked ({type(error).__name__}: {error})") from error
        raise
