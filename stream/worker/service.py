"""The process of a worker: wait for the servers, load, handle records until SIGTERM, finish what is in hand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from models.errors import TastewaveError
from models.release import Release
from stream import metrics
from stream.broker.app import BatchApp, batch_app
from stream.broker.tokens import aiokafka_arguments
from stream.settings import Settings
from stream.store.away import is_redis_away
from stream.store.client import async_client
from stream.store.heartbeat import Heartbeat
from stream.store.live import LiveRelease
from stream.worker.health import Check, Health

log = structlog.get_logger(__name__)

_LEAST_STOP_S = 2.0


class WorkerCrashed(TastewaveError):
    """Faust gave up; the process ends so that its supervisor starts a new one."""


class Role(Protocol):
    """What the workers of one role do that those of another do not."""

    name: str
    """In the consumer group, in logs and metrics."""
    topics: tuple[str, ...]
    """Topics of the contract that must exist before the worker starts."""
    turns: int
    """How many records may take a turn at a time (BatchApp.turn)."""

    async def load(self) -> None:
        """Return when the role can handle records."""
        ...

    def consume(self, app: BatchApp, redis: Any) -> AbstractAsyncContextManager[Mapping[str, Check]]:
        """Register the role's agents with the app; gives the checks of the servers that this role alone needs."""
        ...

    def server_of(self, error: BaseException) -> str:
        """The name of the server that is away, by the error that says so."""
        ...


async def serve(settings: Settings, release: Release, role: Role) -> None:
    """Handle a role's records until SIGTERM or SIGINT.

    Args:
        settings: of the worker.
        release: that it is pinned to.
        role: what it does.

    Raises:
        WorkerCrashed: Faust gave up.
        SettingsError: the health port is taken, the Redis URL cannot be read, or TLS cannot be set up.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    health = Health(
        settings.worker,
        release=release.release_id,
        role=role.name,
        server_of=role.server_of,
        redacted=settings.redacted,
    )
    async with contextlib.AsyncExitStack() as stack:
        port = await health.serve()
        stack.push_async_callback(health.stop)
        address = f"{settings.worker.health_host}:{port}"
        log.info("worker.starting", role=role.name, release=release.release_id, health=address)
        client = async_client(settings.redis)
        stack.push_async_callback(client.aclose)
        live = LiveRelease(client, release.release_id, key_prefix=settings.redis.key_prefix)
        if not await _first(_servers(settings, role.topics, health, live), stopping):
            return
        app = batch_app(
            settings, role=role.name, release=release.release_id, turns=role.turns, on_away=health.report_away
        )
        checks = await stack.enter_async_context(role.consume(app, client))
        if not await _first(role.load(), stopping):
            return
        log.info("worker.loaded")
        redis_check = _redis_check(Heartbeat(client, live, key_prefix=settings.redis.key_prefix), role.name)
        watch = asyncio.create_task(health.watch(app, {"redis": redis_check, **checks}))
        try:
            await _run(app, stopping, settings)
        finally:
            watch.cancel()
        log.info("worker.stopped")


async def _run(app: BatchApp, stopping: asyncio.Event, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    drain_timeout_s = settings.worker.drain_timeout_s
    ends_at = math.inf
    try:
        await app.start()
        await app.wait(stopping.wait())
        ends_at = loop.time() + drain_timeout_s
        if app.crashed:
            reason = settings.redacted(repr(app.crash_reason))
            raise WorkerCrashed(f"the consumer gave up ({reason}); start the worker again, nothing is lost")
        log.info("worker.draining", in_hand=app.in_hand)
        await app.drain(timeout_s=drain_timeout_s)
    finally:
        with contextlib.suppress(TimeoutError):
            left_s = min(drain_timeout_s, ends_at - loop.time())
            await asyncio.wait_for(app.stop(), max(left_s, _LEAST_STOP_S))


def _redis_check(heartbeat: Heartbeat, role: str) -> Check:
    async def check() -> None:
        lost = await heartbeat.beat()
        if lost is None:
            return
        metrics.REDIS_LOST_WRITES.inc()
        since = datetime.datetime.fromtimestamp(lost.since_ms / 1000, tz=datetime.UTC).isoformat()
        log.error(
            "redis.lost_writes",
            lost_since=since,
            advice="answers since then, perhaps earlier ones, are gone; stop the workers, "
            f"`tastewave rewind {role} --minutes N` to before then, start them",
        )

    return check


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


async def _servers(settings: Settings, topics: Sequence[str], health: Health, live: LiveRelease) -> None:
    """Wait until Kafka has the topics and Redis takes writes; make the release live where none is."""

    def waiting(server: str, is_away: Callable[[BaseException], bool]) -> AsyncRetrying:
        def note(state: RetryCallState) -> None:
            if state.outcome and (error := state.outcome.exception()):
                health.report_away(error, server=server)

        return AsyncRetrying(
            retry=retry_if_exception(is_away),
            wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
            before_sleep=note,
            reraise=True,
        )

    async def go_live() -> None:
        release, _ = await waiting("redis", is_redis_away)(live.ensure)
        health.report_back("redis")
        log.info("release.live", release=release)

    async def find_topics() -> None:
        def is_away(error: BaseException) -> bool:
            return isinstance(error, (KafkaError, _MissingTopicsError))

        await waiting("kafka", is_away)(_check_topics, settings, topics)
        health.report_back("kafka")

    await asyncio.gather(go_live(), find_topics())


async def _check_topics(settings: Settings, topics: Sequence[str]) -> None:
    client = AIOKafkaAdminClient(**aiokafka_arguments(settings.kafka))
    try:
        await client.start()
        existing = set(await client.list_topics())
    finally:
        await client.close()
    if missing := sorted({settings.topics.named(name) for name in topics} - existing):
        raise _MissingTopicsError(f"no topic {', '.join(missing)}; run `tastewave topics create`")
