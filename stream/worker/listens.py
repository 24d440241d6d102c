"""`tastewave worker listens`: refreshes users."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from models.contract import DEAD_LETTER, LISTENS, USERS_EMBEDDED
from models.errors import SettingsError
from models.release import Release, load_release
from models.user_tower import UserTower
from stream.broker.app import BatchApp
from stream.broker.publish import Publisher
from stream.listens.cold import ColdTracks
from stream.listens.handler import ListenHandler, server_of
from stream.logs import configure_logs
from stream.settings import Settings
from stream.store.histories import DAY_S, HistoryStore
from stream.store.users import UserStore, register_release
from stream.worker.health import Check
from stream.worker.service import serve

_RECORDS_PER_FETCH = 12_000  # the more listens of a user are in a batch, the less each of them costs
_BATCHES_IN_HAND = 4
# A batch is tens of thousands of objects, none of them part of a cycle. Looking for cycles among them as often as
# Python does by itself takes a sixth of the worker's time.
_GC_THRESHOLD = (200_000, 50, 100)


def run_listens_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ReleaseError: the release cannot be used, or has no user tower.
        SettingsError: the tower reads more listens than are kept, or as stream.worker.service.serve.
        WorkerCrashed, RedisUnusable: as stream.worker.service.serve.
    """
    configure_logs(settings)
    release = load_release(settings.worker.release)
    role = ListensRole(settings, release)
    gc.set_threshold(*_GC_THRESHOLD)
    asyncio.run(serve(settings, release, role))


class ListensRole:
    """The role of a worker that refreshes users; a stream.worker.service.Role."""

    name = "listens"
    topics: tuple[str, ...] = (LISTENS, USERS_EMBEDDED, DEAD_LETTER)
    records_per_fetch = _RECORDS_PER_FETCH
    turns = 1  # which nothing takes

    def __init__(self, settings: Settings, release: Release) -> None:
        self._settings = settings
        self._release = release
        self._tower = _tower(settings, release)

    async def load(self) -> None:
        """Nothing to wait for: the tower is mapped into memory."""

    @contextlib.asynccontextmanager
    async def consume(self, app: BatchApp, redis: Any) -> AsyncIterator[Mapping[str, Check]]:
        """Register the agent for listens."""
        settings, release_id = self._settings, self._release.release_id
        key_prefix, cluster = settings.redis.key_prefix, settings.redis.cluster
        histories = HistoryStore(redis, settings.users, key_prefix=key_prefix, cluster=cluster)
        users = UserStore(
            redis, release_id, key_prefix=key_prefix, cluster=cluster, ttl=settings.users.ttl_days * DAY_S
        )

        async def check_redis() -> None:
            await histories.rehearse()
            await users.rehearse()
            await register_release(redis, release_id, key_prefix=key_prefix)  # again and again: Redis may lose it

        has_encoder = self._release.configuration.audio_encoder is not msgspec.UNSET
        dim = self._tower.manifest.dim
        handler = ListenHandler(
            release=release_id,
            tower=self._tower,
            histories=histories,
            users=users,
            cold=ColdTracks(redis, release_id, dim=dim, key_prefix=key_prefix) if has_encoder else None,
            publisher=Publisher(app.producer, settings.topics, release=release_id),
            future_tolerance_ms=int(settings.worker.future_tolerance_s * 1000),
            cluster=cluster,
        )
        app.consume_batches(settings.topics.named(LISTENS), handler, in_hand=_BATCHES_IN_HAND)
        yield {"redis": check_redis}

    def server_of(self, error: BaseException) -> str:
        """Redis or kafka."""
        return server_of(error) or "kafka"


def _tower(settings: Settings, release: Release) -> UserTower:
    tower = release.user_tower()
    if tower.manifest.history > settings.users.history:
        raise SettingsError(
            f"TASTEWAVE_USER_HISTORY is {settings.users.history}, and the user tower of release {release.release_id} "
            f"reads the newest {tower.manifest.history} listens; raise it to that"
        )
    return tower
