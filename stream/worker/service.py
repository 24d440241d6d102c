"""The event loop of a worker: wait for the servers, run the agent until SIGTERM, finish what is in hand."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import Coroutine
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from models.contract import DEAD_LETTER, TRACKS_FEATURES, TRACKS_TAGGED, TRACKS_UPLOADED
from models.errors import TastewaveError
from models.release import Release
from stream import metrics
from stream.audio.fetch import Fetcher
from stream.audio.pool import TaggerPool
from stream.broker.app import tracks_app
from stream.broker.faust_driver import BatchApp, Handler
from stream.broker.publish import Publisher
from stream.settings import Settings
from stream.store.client import async_client
from stream.store.tracks import TrackStore, is_redis_away
from stream.tracks.handler import TrackHandler, is_away, order_by_track
from stream.worker.health import Health

log = structlog.get_logger(__name__)

_LEAST_STOP_S = 2.0
_RECORDS_IN_FLIGHT = 256  # what needs no hearing flows past what does


class WorkerCrashed(TastewaveError):
    """Faust gave up; the process ends so that its supervisor starts a new one."""


async def serve_tracks(settings: Settings, release: Release, pool: TaggerPool) -> None:
    """Answer uploaded tracks until SIGTERM or SIGINT.

    Args:
        settings: of the worker.
        release: that it is pinned to.
        pool: launched with that release.

    Raises:
        WorkerCrashed: Faust gave up.
        SettingsError: the health port is taken, or the Redis URL cannot be read.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    health = Health(settings.worker, redacted=settings.redacted, release=release.release_id, role="tracks")
    async with contextlib.AsyncExitStack() as stack:
        port = await health.serve()
        stack.push_async_callback(health.stop)
        log.info(
            "worker.starting", role="tracks", release=release.release_id, health=f"{settings.worker.health_host}:{port}"
        )
        client = async_client(settings.redis)
        stack.push_async_callback(client.aclose)
        store = TrackStore(client, release.release_id, keep_taggrams=settings.worker.store_taggram)
        if not await _first(_servers(settings, health, store), stopping):
            return
        fetcher = await stack.enter_async_context(Fetcher(settings.fetch))
        app = tracks_app(settings, release.release_id, turns=settings.worker.tracks_in_hand or 4 * pool.processes)
        handler = TrackHandler(
            release=release.release_id,
            front_end=release.configuration.front_end,
            fetcher=fetcher,
            pool=pool,
            store=store,
            publisher=Publisher(app.producer, settings.topics, release=release.release_id),
            turn=app.turn,
            top_k=settings.worker.top_k,
            future_tolerance_ms=int(settings.worker.future_tolerance_s * 1000),
        )
        app.consume(
            settings.topics.named(TRACKS_UPLOADED),
            Handler(handler.handle, handler.give_up, is_away, order_by_track, health.away),
            window=_RECORDS_IN_FLIGHT,
        )
        await _run(app, pool, health, store, stopping, settings=settings)


async def _run(
    app: BatchApp, pool: TaggerPool, health: Health, store: TrackStore, stopping: asyncio.Event, *, settings: Settings
) -> None:
    if not await _first(_loaded(pool), stopping):
        return
    log.info("worker.loaded")
    watch = asyncio.create_task(health.watch(app, store, pool))
    loop = asyncio.get_running_loop()
    ends_at = math.inf
    try:
        await app.start()
        await app.wait(stopping.wait())
        ends_at = loop.time() + settings.worker.drain_timeout_s
        if app.crashed:
            reason = settings.redacted(repr(app.crash_reason))
            raise WorkerCrashed(f"the consumer gave up ({reason}); start the worker again, nothing is lost")
        log.info("worker.draining", in_flight=app.in_flight)
        await app.drain(timeout_s=settings.worker.drain_timeout_s)
    finally:
        watch.cancel()
        with contextlib.suppress(TimeoutError):
            left_s = min(settings.worker.drain_timeout_s, ends_at - loop.time())
            await asyncio.wait_for(app.stop(), max(left_s, _LEAST_STOP_S))
    log.info("worker.stopped")


async def _loaded(pool: TaggerPool) -> None:
    for guard, holds in (await pool.ready()).items():
        metrics.GUARD.labels(guard).set(holds)
        if not holds:
            log.warning("guard.off", guard=guard, advice="strangers' files are heard with more rights than needed")


async def _first(coroutine: Coroutine[Any, Any, None], stopping: asyncio.Event) -> bool:
    """Whether the work ended before the stop; a stop cancels it."""
    work = asyncio.ensure_future(coroutine)
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not work.done():
        work.cancel()
        return False
    await work
    return True


class _MissingTopicsError(Exception):
    pass


async def _servers(settings: Settings, health: Health, store: TrackStore) -> None:
    """Wait until Kafka has the topics and Redis takes writes; make the release live where none is."""

    def waiting(server: str, is_away_now: Any) -> AsyncRetrying:
        def note(state: RetryCallState) -> None:
            if state.outcome and (error := state.outcome.exception()):
                health.waiting(server, error)

        return AsyncRetrying(
            retry=retry_if_exception(is_away_now),
            wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
            before_sleep=note,
            reraise=True,
        )

    async def go_live() -> None:
        live = await waiting("redis", is_redis_away)(store.go_live, only_if_none=True)
        health.waiting("redis", None)
        log.info("release.live", release=live)

    async def find_topics() -> None:
        await waiting("kafka", lambda error: isinstance(error, (KafkaError, _MissingTopicsError)))(
            _check_topics, settings
        )
        health.waiting("kafka", None)

    await asyncio.gather(go_live(), find_topics())


async def _check_topics(settings: Settings) -> None:
    client = AIOKafkaAdminClient(**settings.kafka.client_arguments())
    try:
        await client.start()
        found = set(await client.list_topics())
    finally:
        await client.close()
    needed = {settings.topics.named(name) for name in (TRACKS_UPLOADED, TRACKS_TAGGED, TRACKS_FEATURES, DEAD_LETTER)}
    if missing := sorted(needed - found):
        raise _MissingTopicsError(f"no topic {', '.join(missing)}; run `tastewave topics create`")
