"""Many answers in one round trip to Redis, for one event loop.

reader = AnswerReader(redis.asyncio.Redis())
release = await reader.live()
if release:
    for fields in await reader.tracks(["t1", "t2"], release=release):
        ...  # as models.contract.track_answer takes them; None where the track is unknown
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.exceptions

from models.contract import (
    KEY_PREFIX,
    feedback_key,
    history_key,
    live_key,
    taggram_key,
    track_key,
    user_key,
    workers_key,
)
from models.errors import TastewaveError
from models.history import Histories, StoredHistory, read_histories
from stream.reader.offers import known_of
from stream.store.away import is_foreign, named
from stream.store.pipelines import exchange, exchange_with_cluster, packed_word
from stream.store.workers import WorkerReport, reports

IDS_AT_ONCE = 500
"""The most keys of one round trip."""
LIVE_S = 1.0
"""How long readers may keep the live release."""

Values = list[bytes | None]
"""Fields of a track or user as Redis holds them, in the order of their names; None for one that is not there."""
Commands = Sequence[tuple[Any, ...] | bytes]


class RedisAway(TastewaveError):
    """Redis does not answer a reader now."""


class AnswerReader:
    """Reads tracks and users. What is asked for at the same moment goes to Redis in one round trip.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes, as stream.store.client makes it.
        key_prefix: the platform's TASTEWAVE_REDIS_KEY_PREFIX.
        cluster: whether the client is one of a Cluster: then a round trip goes to each node.
        timeout_s: seconds that Redis may take for an answer.
        monotonic: the clock, in seconds.

    Raises:
        RedisAway: from each method, where Redis does not answer, or refuses.
        ForeignValue: likewise, where a key holds what tastewave did not write.
    """

    def __init__(
        self,
        client: Any,
        *,
        key_prefix: str = KEY_PREFIX,
        cluster: bool = False,
        timeout_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._prefix = key_prefix
        self._cluster = cluster
        self._exchange: Callable[..., Awaitable[list[Any]]] = exchange_with_cluster if cluster else exchange
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._waiting: list[tuple[Commands, asyncio.Future[list[Any]]]] = []
        self._trips: set[asyncio.Task[None]] = set()
        self._live: tuple[str | None, float] = (None, float("-inf"))

    async def live(self) -> str | None:
        """The live release, at most a second old; None where none is. Take it once for a whole request."""
        release, asked_at = self._live
        now = self._monotonic()
        if now - asked_at < LIVE_S:
            return release
        key = live_key(prefix=self._prefix)
        (value,) = await self._ask([("HGET", key, "release")], keys=[key])
        release = value.decode() if value else None
        self._live = (release, now)
        return release

    async def live_fields(self, names: Sequence[str]) -> Values:
        """Fields of tw:live as it is now."""
        key = live_key(prefix=self._prefix)
        (values,) = await self._ask([("HMGET", key, *names)], keys=[key])
        return values

    async def workers(self) -> list[WorkerReport]:
        """What workers say of themselves, also those that stopped without a word in the last hour."""
        key = workers_key(prefix=self._prefix)
        (held,) = await self._ask([("HGETALL", key)], keys=[key])
        return reports(held if isinstance(held, dict) else dict(zip(held[::2], held[1::2], strict=True)))

    async def tracks(self, track_ids: Sequence[str], names: Sequence[str], *, release: str) -> list[Values | None]:
        """What a release holds of tracks.

        Args:
            track_ids: of the tracks.
            names: of the fields that are wanted, status among them.
            release: release_id.

        Returns:
            The fields of each track, in the order of the ids; None for a track that the release does not know.
        """
        keys = [track_key(release, track_id, prefix=self._prefix) for track_id in track_ids]
        return await self._rows(keys, names, sign="status")

    async def users(self, user_ids: Sequence[str], names: Sequence[str], *, release: str) -> list[Values | None]:
        """What a release holds of users, likewise; the names have source among them."""
        keys = [user_key(release, user_id, prefix=self._prefix) for user_id in user_ids]
        return await self._rows(keys, names, sign="source")

    async def taggram(self, track_id: str, *, release: str) -> bytes | None:
        """The taggram that a release holds of a track (models.contract.decode_taggram); None where it holds none."""
        key = taggram_key(release, track_id, prefix=self._prefix)
        (taggram,) = await self._ask([("GET", key)], keys=[key])
        return taggram

    async def has_taggram(self, track_id: str, *, release: str) -> bool:
        """Whether a release holds a taggram of a track."""
        key = taggram_key(release, track_id, prefix=self._prefix)
        (count,) = await self._ask([("EXISTS", key)], keys=[key])
        return bool(count)

    async def known_tracks(self, user_id: str) -> set[str]:
        """The tracks that a user has heard, dislikes or has excluded (stream.reader.offers.known_tracks)."""
        stored = await self._stored(user_id)
        with named(history_key(user_id, prefix=self._prefix)):
            return known_of(stored.members, stored.feedback)

    async def listens(self, user_id: str) -> Histories:
        """The listens of a user that stand, oldest first (models.history.read_histories of one user)."""
        stored = await self._stored(user_id)
        with named(history_key(user_id, prefix=self._prefix)):
            return read_histories([stored])

    async def _stored(self, user_id: str) -> StoredHistory:
        history, feedback = history_key(user_id, prefix=self._prefix), feedback_key(user_id, prefix=self._prefix)
        try:
            async with asyncio.timeout(self._timeout_s):
                members, said = await asyncio.gather(
                    self._client.zrange(history, 1, -1),  # at 0 stands the revision
                    self._client.zrange(feedback, 0, -1, withscores=True),
                )
        except (OSError, redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
            raise _told(error, f"{history} or {feedback}") from error
        return StoredHistory(members, said)

    async def _rows(self, keys: Sequence[str], names: Sequence[str], *, sign: str) -> list[Values | None]:
        """The fields under each key; `sign` is the one without which there is nothing."""
        rows: list[Values | None] = []
        for begin in range(0, len(keys), IDS_AT_ONCE):
            some = keys[begin : begin + IDS_AT_ONCE]
            commands = [("HMGET", key, *names) for key in some] if self._cluster else _packed(some, tuple(names))
            rows += await self._ask(commands, keys=some)
        place = names.index(sign)
        return [row if row[place] is not None else None for row in rows]  # type: ignore[index]

    async def _ask(self, commands: Commands, *, keys: Sequence[str]) -> list[Any]:
        """The answers of commands of a key each, sent with those of all who ask in this round of the loop."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Any]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((commands, answered))
        answers = await answered
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, Exception):
                raise _told(answer, key) from answer
        return answers

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        trip: list[tuple[Commands, asyncio.Future[list[Any]]]] = []
        size = 0
        for one in waiting:
            if trip and size + len(one[0]) > IDS_AT_ONCE:
                self._depart(trip)
                trip, size = [], 0
            trip.append(one)
            size += len(one[0])
        self._depart(trip)

    def _depart(self, trip: Sequence[tuple[Commands, asyncio.Future[list[Any]]]]) -> None:
        task = asyncio.get_running_loop().create_task(self._travel(trip))
        self._trips.add(task)
        task.add_done_callback(self._trips.discard)

    async def _travel(self, trip: Sequence[tuple[Commands, asyncio.Future[list[Any]]]]) -> None:
        """One round trip. Whoever does not wait any more gets nothing."""
        commands = [command for asked, _ in trip for command in asked]
        try:
            answers = await self._exchange(self._client, commands, timeout_s=self._timeout_s)
        except Exception as error:  # noqa: BLE001 - it is told to everybody who asked
            for _, answered in trip:
                if not answered.done():
                    answered.set_exception(_told(error, "keys"))
            return
        begin = 0
        for asked, answered in trip:
            end = begin + len(asked)
            if not answered.done():
                answered.set_result(answers[begin:end])
            begin = end


def _packed(keys: Sequence[str], names: tuple[str, ...]) -> list[bytes]:
    """HMGET commands as Redis reads them. hiredis packs the names anew for each key, in five times the time."""
    head, tail = _around_key(names)
    return [b"%s%s%s" % (head, packed_word(key), tail) for key in keys]


@functools.lru_cache(maxsize=256)
def _around_key(names: tuple[str, ...]) -> tuple[bytes, bytes]:
    """What stands before and after the key in an HMGET of fields."""
    return b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(names)), b"".join(map(packed_word, names))


def _told(error: Exception, key: str) -> Exception:
    """An error of Redis as one of ours; another one as it is."""
    if is_foreign(error):
        try:
            with named(key):
                raise error
        except TastewaveError as foreign:
            return foreign
    if isinstance(error, (OSError, redis.exceptions.RedisError, redis.exceptions.RedisClusterException)):
        said = str(error) or type(error).__name__
        return RedisAway(f"Redis does not answer ({said}); try again, and look after Redis")
    return error
