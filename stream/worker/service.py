"""The process of a worker: wait for the servers, load, handle records until SIGTERM, finish what is in hand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import math
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)
from redis.exceptions import RedisError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from models.errors import TastewaveError
from models.release import Release
from stream import metrics
from stream.broker.app import BatchApp, batch_app
from stream.broker.tokens import aiokafka_arguments
from stream.settings import Settings
from stream.store.away import is_redis_away, needs_another_setting
from stream.store.client import async_client, unusable
from stream.store.heartbeat import Heartbeat
from stream.store.live import LiveRelease
from stream.store.workers import Workers
from stream.worker.health import Check, Health
from stream.worker.report import Reporter

log = structlog.get_logger(__name__)

_DEMONSTRATION = (
    "its taste space was learned from a made-up platform; build a release with a user tower and an audio encoder of "
    "your own before you use embeddings"
)

_LEAST_STOP_S = 2.0
_REFUSALS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)


class WorkerCrashed(TastewaveError):
    """Faust gave up; the process ends so that its supervisor starts a new one."""


class Role(Protocol):
    """What the workers of one role do that those of another do not."""

    name: str
    """In the consumer group, in logs and metrics."""
    topics: tuple[str, ...]
    """Topics of the contract that must exist before the worker starts: those that it reads, and those it writes."""
    records_per_fetch: int
    """The most records of a batch that an agent gets."""
    turns: int
    """How many records may take a turn at a time (BatchApp.turn)."""
    processes: int
    """How many processes hear tracks."""

    async def load(self) -> None:
        """Return when the role can handle records."""
        ...

    def consume(self, app: BatchApp, redis: Any) -> AbstractAsyncContextManager[Mapping[str, Check]]:
        """Register the role's agents with the app.

        Gives the checks of what this role needs: under "redis", whether it takes what the role writes; under names of
        the role's own, whatever else it needs.
        """
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
        RedisUnusable: Redis refuses this client for good.
        SettingsError: the health port is taken, the Redis URL cannot be read, or TLS cannot be set up.
    """
    gc.freeze()  # what was imported stays
    gc.enable()  # import_quickly turned it off
    created = datetime.datetime.fromisoformat(release.manifest.created)
    metrics.RELEASE_CREATED.labels(release.release_id).set(created.timestamp())
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
        if release.manifest.demonstration:
            log.warning("release.demonstration", advice=_DEMONSTRATION)
        client = async_client(settings.redis)
        stack.push_async_callback(client.aclose)
        live = LiveRelease(client, release.release_id, key_prefix=settings.redis.key_prefix)
        if not await _first(_servers(settings, role.topics, health, live), stopping):
            return
        app = batch_app(
            settings,
            role=role.name,
            release=release.release_id,
            records_per_fetch=role.records_per_fetch,
            turns=role.turns,
            on_away=health.report_away,
            topics=role.topics,
        )
        checks = await stack.enter_async_context(role.consume(app, client))
        if not await _first(role.load(), stopping):
            return
        log.info("worker.loaded")
        heartbeat = Heartbeat(client, live, key_prefix=settings.redis.key_prefix)
        reporter = Reporter(Workers(client, key_prefix=settings.redis.key_prefix), health, processes=role.processes)
        stack.push_async_callback(reporter.leave)
        redis_check = _redis_check(heartbeat, reporter, role.name, checks["redis"])
        watch = asyncio.create_task(health.watch(app, {**checks, "redis": redis_check}))
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
        started = await _first(app.start(), stopping)
        if started:
            await app.wait(stopping.wait())
        ends_at = loop.time() + drain_timeout_s
        if app.crashed:
            raise _crashed(app.crash_reason, settings)
        if started:
            log.info("worker.draining", in_hand=app.in_hand)
            await app.drain(timeout_s=drain_timeout_s)
    except KafkaError as error:  # Kafka went away, or refused, between the look at the topics and the start
        raise _crashed(error, settings) from error
    finally:
        with contextlib.suppress(TimeoutError):
            left_s = min(drain_timeout_s, ends_at - loop.time())
            await asyncio.wait_for(app.stop(), max(left_s, _LEAST_STOP_S))


def _crashed(reason: BaseException | None, settings: Settings) -> WorkerCrashed:
    """With one sentence that says what helps."""
    if isinstance(reason, UnsupportedCodecError):
        advice = "a decoder is missing: install all packages of deploy/locks/worker.txt, and start the worker again"
    elif isinstance(reason, CorruptRecordException):
        advice = (
            "a restart meets the same records: have Kafka's replicas checked, or move the consumer group past them "
            "(section 1 of deploy/runbook.md), and start the worker again"
        )
    elif isinstance(reason, _REFUSALS):
        groups = settings.topics.named("tastewave.*")
        advice = f"let the worker's user read its topics and join the groups {groups}, and start the worker again"
    else:
        advice = "nothing is lost; if the next start ends the same way, see section 1 of deploy/runbook.md"
    return WorkerCrashed(f"the consumer gave up ({settings.redacted(repr(reason))}); {advice}")


def _redis_check(heartbeat: Heartbeat, reporter: Reporter, role: str, check_role: Check) -> Check:
    async def check() -> None:
        await check_role()
        lost = await heartbeat.beat()
        await reporter.tell()
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
    """Whether the work ended before the stop; a stop cancels it, and waits a little for its end."""
    work = asyncio.ensure_future(coroutine)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
            return True
        return False
    finally:
        stop.cancel()
        work.cancel()
        await asyncio.wait([work], timeout=_LEAST_STOP_S)


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
        def is_away(error: BaseException) -> bool:
            return is_redis_away(error) and not needs_another_setting(error)

        try:
            release, _ = await waiting("redis", is_away)(live.ensure)
        except RedisError as error:
            raise unusable(settings.redis, error) from None
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
        raise _MissingTopicsError(
            f"there is no topic {', '.join(missing)} that this worker may see; run `tastewave topics create`, "
            "or let the worker's user describe it"
        )
