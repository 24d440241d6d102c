"""`tastewave worker tracks`: answers uploads.

The pool comes first: its processes load the release while this one imports Faust, which is why the other imports
stand inside the functions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from models.contract import DEAD_LETTER, TRACKS_CORRECTED, TRACKS_FEATURES, TRACKS_TAGGED, TRACKS_UPLOADED
from models.release import Release, load_release
from stream import metrics, traces
from stream.audio import sandbox
from stream.audio.cpus import usable_cpus
from stream.audio.machine import try_disk
from stream.audio.pool import TaggerPool
from stream.logs import configure_logs
from stream.settings import Settings

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from stream.broker.app import BatchApp
    from stream.worker.health import Check

log = structlog.get_logger(__name__)

_RECORDS_PER_FETCH = 32
_RECORDS_IN_HAND = 256  # an upload that needs no hearing does not wait for those that do
_CORRECTIONS_IN_HAND = 32
_TRACKS_IN_HAND_PER_PROCESS = 4


def run_tracks_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ReleaseError: the release cannot be used, or is not signed as the settings ask.
        WorkerCrashed, SettingsError: as stream.worker.service.serve.
    """
    configure_logs(settings)
    release = load_release(settings.worker.release, public_key=settings.worker.release_public_key)
    pool = TaggerPool(
        str(release.folder),
        processes=settings.pool.size or usable_cpus(),
        timeout_s=settings.pool.task_timeout_s,
        memory_mb=settings.pool.task_memory_mb,
        max_duration_s=settings.pool.max_duration_s,
        on_restart=metrics.POOL_RESTARTS.inc,
    )
    try:
        pool.launch()
        from stream.worker.service import serve

        with traces.exported(settings.traces, service="tastewave-tracks"):
            asyncio.run(serve(settings, release, TracksRole(settings, release, pool)))
    finally:
        pool.stop()


class TracksRole:
    """The role of a worker that answers uploads; a stream.worker.service.Role."""

    name = "tracks"
    topics: tuple[str, ...] = (TRACKS_UPLOADED, TRACKS_CORRECTED, TRACKS_TAGGED, TRACKS_FEATURES, DEAD_LETTER)
    records_per_fetch = _RECORDS_PER_FETCH

    def __init__(self, settings: Settings, release: Release, pool: TaggerPool) -> None:
        self._settings = settings
        self._release = release
        self._pool = pool
        self.processes = pool.processes
        self.turns = settings.worker.tracks_in_hand or _TRACKS_IN_HAND_PER_PROCESS * pool.processes

    async def load(self) -> None:
        """Return when the pool is ready. Raises what TaggerPool.ready raises."""
        metrics.LANDLOCK_ABI.set(sandbox.landlock_abi())
        release = self._release.release_id
        for guard, holds in (await self._pool.ready()).items():
            metrics.GUARD.labels(guard).set(holds)
            if not holds:
                log.warning("guard.off", guard=guard, advice="files are decoded with one guard less; see the runbook")
        for genre, share in self._pool.genre_shares.items():
            metrics.TRAINING_GENRES.labels(release, genre).set(share)
        for genre in self._release.configuration.genres:
            metrics.TRACKS_TAGGED.labels(release, genre)  # from 0 on, or Prometheus would not see the first of a genre

    @contextlib.asynccontextmanager
    async def consume(self, app: BatchApp, redis: Any) -> AsyncIterator[Mapping[str, Check]]:
        """Register the agents for uploads and for corrections."""
        from stream.audio.fetch import Fetcher
        from stream.broker.publish import Publisher
        from stream.store.corrections import Corrections
        from stream.store.hearings import Hearings
        from stream.store.tracks import TrackStore
        from stream.store.users import register_release
        from stream.tracks.corrections import CorrectionHandler
        from stream.tracks.handler import TrackHandler

        worker, topics, release_id = self._settings.worker, self._settings.topics, self._release.release_id
        key_prefix = self._settings.redis.key_prefix
        store = TrackStore(redis, release_id, key_prefix=key_prefix, keep_taggrams=worker.store_taggram)
        hearings = Hearings(redis, release_id, key_prefix=key_prefix)
        publisher = Publisher(app.producer, topics, release=release_id)
        future_tolerance_ms = int(worker.future_tolerance_s * 1000)

        async def check_redis() -> None:
            await store.rehearse()
            await hearings.rehearse()

        @contextlib.asynccontextmanager
        async def turn(record: ConsumerRecord) -> AsyncIterator[None]:
            async with app.turn(record), hearings.of(record):
                yield

        async with Fetcher(self._settings.fetch) as fetcher:
            handler = TrackHandler(
                release=release_id,
                front_end=self._release.hearing,
                networks=self._release.network_hashes,
                encoders=self._release.encoder_hashes.values(),
                fetcher=fetcher,
                pool=self._pool,
                store=store,
                publisher=publisher,
                turn=turn,
                top_k=worker.top_k,
                future_tolerance_ms=future_tolerance_ms,
            )
            corrections = CorrectionHandler(
                corrections=Corrections(redis, key_prefix=key_prefix),
                publisher=publisher,
                future_tolerance_ms=future_tolerance_ms,
            )
            await register_release(redis, release_id, key_prefix=key_prefix)  # before the first answer
            app.consume(topics.named(TRACKS_UPLOADED), handler, in_hand=_RECORDS_IN_HAND)
            app.consume(topics.named(TRACKS_CORRECTED), corrections, in_hand=_CORRECTIONS_IN_HAND)
            yield {
                "redis": check_redis, "pool": self._check_pool, "machine": _check_machine, "fetch": self._check_fetch
            }  # fmt: skip

    def server_of(self, error: BaseException) -> str:
        """machine, redis, pool, fetch (a server of audio) or kafka."""
        from stream.tracks.handler import server_of

        return server_of(error) or "kafka"

    async def _check_fetch(self) -> None:
        """Nothing to ask: servers of audio are back when no record waits for one (Health.report_back)."""

    async def _check_pool(self) -> None:
        if self._pool.trouble:
            raise self._pool.trouble


async def _check_machine() -> None:
    await asyncio.to_thread(try_disk)
