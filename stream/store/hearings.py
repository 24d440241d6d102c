"""Which worker processes began to hear a record and never ended: a record that kills workers is found by it.

A file may take the whole worker with it, as where the kernel ends a container that lacks memory. Kafka then delivers
the record to the next worker, and the one after it. So a worker notes in Redis that it begins, and takes that back when
it has ended in whatever way. A process that is noted and is not this one was killed meanwhile, or has lost the
partition and hears the record still; but not as many at a time as it takes to give a record up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from aiokafka.structs import ConsumerRecord

from models.contract import KEY_PREFIX
from models.errors import ProcessCrashed
from stream.store.scripts import rehearsal, script

MOST_KILLED = 5
"""So many workers may have been killed while they heard a record; then it is given up."""

_HEARD_ALONE_AFTER = 2
_TTL_S, _TTL_GIVEN_UP_S = 86_400, 600


class KilledWorkers(ProcessCrashed):
    """The workers that heard the record were killed, one after the other."""


class Hearings:
    """Notes what this process is hearing.

    A killed worker leaves notes at all records that it was hearing, though one alone may be to blame. A record that
    was there twice is heard while no other such record is, so that what was only near comes through.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id of the worker.
        key_prefix: of all keys.
    """

    def __init__(self, client: Any, release: str, *, key_prefix: str = KEY_PREFIX) -> None:
        self._client = client
        self._prefix = key_prefix
        self._release = release
        self._process = uuid4().hex
        self._begin = script(client, "begin_hearing")
        self._rehearsal = rehearsal(client, "begin_hearing")
        self._alone = asyncio.Lock()

    async def rehearse(self) -> None:
        """Write what `of` writes, for no record, and delete it at once; raises as TrackStore.rehearse."""
        key = self._key(f"rehearsal-{self._process}")
        await self._rehearsal(keys=[key], args=[self._process, MOST_KILLED, _TTL_S] * 2)
        await self._client.srem(key, self._process)
        await self._client.delete(key)

    @contextlib.asynccontextmanager
    async def of(self, record: ConsumerRecord) -> AsyncIterator[None]:
        """Around the hearing of a record.

        Raises:
            KilledWorkers: MOST_KILLED workers were killed while they heard it. The notes are gone soon afterwards, and
                not at once, so that nobody hears it again before it is a dead letter.
            What stream.store.away.is_redis_away knows.
        """
        key = self._key(f"{record.topic}/{record.partition}/{record.offset}")
        async with contextlib.AsyncExitStack() as stack:
            killed = await self._note(key, too_many=_HEARD_ALONE_AFTER)
            if killed >= _HEARD_ALONE_AFTER:
                await stack.enter_async_context(self._alone)
                killed = await self._note(key, too_many=MOST_KILLED)
            if killed >= MOST_KILLED:
                await self._client.expire(key, _TTL_GIVEN_UP_S)
                raise KilledWorkers(
                    f"{killed} workers were killed while they fetched or heard the track; see whether their machine "
                    "lacks memory, and check the file"
                )
            try:
                yield
            except BaseException:
                await self._client.srem(key, self._process)
                raise
            await self._client.delete(key)  # also what others left: the record is innocent

    def _key(self, place: str) -> str:
        return f"{self._prefix}:{self._release}:hearing:{{{place}}}"

    async def _note(self, key: str, *, too_many: int) -> int:
        return int(await self._begin(keys=[key], args=[self._process, too_many, _TTL_S]))
