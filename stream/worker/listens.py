"""`tastewave worker listens`: refreshes users."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import AsyncIterator, Mapping
from typing import Any

from models.contract import DEAD_LETTER, LISTENS, USERS_EMBEDDED
from models.release import Release, load_release
from stream import traces
from stream.broker.app import BatchApp
from stream.broker.publish import Publisher
from stream.listens.agent import listens_agent, usable_tower
from stream.listens.handler import server_of
from stream.logs import configure_logs
from stream.settings import Settings
from stream.store.users import register_release
from stream.worker.health import Check
from stream.worker.service import serve

_RECORDS_PER_FETCH = 12_000  # the more listens of a user are in a batch, the less each of them costs
_PIECES_IN_HAND = 3  # one is decoded or embedded while others wait for Redis and Kafka
# A batch is tens of thousands of objects, none of them part of a cycle. Looking for cycles among them as often as
# Python does by itself takes a sixth of the worker's time.
_GC_THRESHOLD = (200_000, 5, 5)
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's <malloc.h>
_LARGE_BYTES = 128 << 10


def run_listens_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ReleaseError: the release cannot be used, is not signed as the settings ask, or has no user tower.
        SettingsError: the tower reads more listens than are kept, or as stream.worker.service.serve.
        WorkerCrashed, RedisUnusable: as stream.worker.service.serve.
    """
    _give_memory_back()
    configure_logs(settings)
    release = load_release(settings.worker.release, public_key=settings.worker.release_public_key)
    role = ListensRole(settings, release)
    gc.set_threshold(*_GC_THRESHOLD)
    with traces.exported(settings.traces, service="tastewave-listens"):
        asyncio.run(serve(settings, release, role))


def _give_memory_back() -> None:
    """Have glibc give large blocks back to the kernel, and its threads share one arena.

    By itself it keeps them once it has seen a few, for each thread: a worker then took about 40 MiB more.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # musl has none
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class ListensRole:
    """The role of a worker that refreshes users; a stream.worker.service.Role."""

    name = "listens"
    topics: tuple[str, ...] = (LISTENS, USERS_EMBEDDED, DEAD_LETTER)
    records_per_fetch = _RECORDS_PER_FETCH
    turns = 1  # which nothing takes
    processes = 0

    def __init__(self, settings: Settings, release: Release) -> None:
        self._settings = settings
        self._release = release
        self._tower = usable_tower(settings, release)

    async def load(self) -> None:
        """Nothing to wait for: the tower is mapped into memory."""

    @contextlib.asynccontextmanager
    async def consume(self, app: BatchApp, redis: Any) -> AsyncIterator[Mapping[str, Check]]:
        """Register the agent for listens."""
        settings, release = self._settings, self._release
        publisher = Publisher(app.producer, settings.topics, release=release.release_id)
        handler, histories, users = listens_agent(settings, release, self._tower, redis, publisher)

        async def check_redis() -> None:
            await histories.rehearse()
            await users.rehearse()
            # again and again: Redis may lose it
            await register_release(redis, release.release_id, key_prefix=settings.redis.key_prefix)

        app.consume_batches(settings.topics.named(LISTENS), handler, in_hand=_PIECES_IN_HAND)
        yield {"redis": check_redis}

    def server_of(self, error: BaseException) -> str:
        """Redis or kafka."""
        return server_of(error) or "kafka"
