"""/live, /ready and /metrics on a port of the worker's own; readiness looks at progress against lag."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from aiohttp import web
from faust.exceptions import ConsumerNotStarted
from faust.types import TP
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from models.errors import SettingsError
from stream import metrics
from stream.audio.pool import PoolUnusable, TaggerPool
from stream.broker.faust_driver import BatchApp, Progress
from stream.settings import WorkerSettings
from stream.store.tracks import TrackStore, is_redis_away

log = structlog.get_logger(__name__)

CHECK_EVERY_S = 1.0
_UNREADY_CHECK_EVERY_S = 0.1
_CHECK_TIMEOUT_S = 5.0


class Health:
    """What keeps a worker from being ready, checked every second against the servers themselves.

    Args:
        settings: where to serve, and how long a partition may stand still.
        release: the release that the worker is pinned to.
        role: tracks or listens.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        release: str,
        role: str,
        redacted: Callable[[str], str] = str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._settings = settings
        self._redacted = redacted
        self._release = release
        self._role = role
        self._problems = {"worker": "starting"}
        self._checked_at = self._monotonic()
        self._moved: dict[TP, tuple[int, float]] = {}
        self._progress: dict[TP, Progress] = {}
        self._asking: asyncio.Task[dict[TP, Progress]] | None = None
        self._runner: web.AppRunner | None = None
        self._waiting: Callable[[], Iterable[BaseException]] = tuple
        metrics.RELEASE.info({"release": release, "role": role})

    def waiting(self, server: str, error: BaseException | str | None) -> None:
        """Note that a server is away (or, with None, back); logs the changes only.

        A server that answers a check, but has not yet answered a record that waits for it, is not back.
        """
        if error is None and any(_server(waited) == server for waited in self._waiting()):
            return
        if error is not None and server not in self._problems:
            log.warning("server.away", server=server, error=str(error))
        elif error is None and server in self._problems:
            log.info("server.back", server=server)
        if error is None:
            self._problems.pop(server, None)
        else:
            self._problems[server] = self._redacted(str(error))
        metrics.WAITING.labels(server).set(error is not None)

    def away(self, error: BaseException) -> None:
        """A record is waiting because of this error."""
        self.waiting(_server(error), error)

    def started(self) -> None:
        """The worker has loaded its release and is in its consumer group."""
        self._problems.pop("worker", None)

    def checked(self) -> None:
        """A round of checks has ended."""
        self._checked_at = self._monotonic()

    async def watch(self, app: BatchApp, store: TrackStore, pool: TaggerPool) -> None:
        """Check for ever, and log when readiness changes."""
        was_ready = False
        self._waiting = lambda: app.waiting
        while True:
            await asyncio.gather(self._check_redis(store), self._check_kafka(app))
            self.waiting("pool", pool.trouble)
            metrics.WINDOW.set(app.in_flight)
            self.checked()
            report = self.report()
            if report["ready"] != was_ready:
                was_ready = report["ready"]
                log.info("worker.ready" if was_ready else "worker.not_ready", problems=report["problems"])
            await asyncio.sleep(CHECK_EVERY_S if was_ready else _UNREADY_CHECK_EVERY_S)

    async def _check_redis(self, store: TrackStore) -> None:
        try:
            lost_since_ms = await asyncio.wait_for(store.check(), _CHECK_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker is not ready
            self.waiting("redis", str(error) or type(error).__name__)
        else:
            self.waiting("redis", None)
            if lost_since_ms is not None:
                metrics.REDIS_LOST_WRITES.inc()
                log.error(
                    "redis.lost_writes",
                    lost_since=datetime.datetime.fromtimestamp(lost_since_ms / 1000, tz=datetime.UTC).isoformat(),
                    advice="answers since then, perhaps earlier ones, are gone; stop the workers, "
                    f"`tastewave rewind {self._role} --minutes N` to before then, start them",
                )

    async def _check_kafka(self, app: BatchApp) -> None:
        if app.joined:
            self.started()
        self._asking = self._asking or asyncio.create_task(app.progress())
        done, _ = await asyncio.wait([self._asking], timeout=_CHECK_TIMEOUT_S)
        if not done:  # asked once: questions would pile up in the consumer's thread while the broker is away
            self.waiting("kafka", f"no answer in {_CHECK_TIMEOUT_S:g} s")
            return
        asked, self._asking = self._asking, None
        error = asked.exception()
        if isinstance(error, ConsumerNotStarted):  # the worker is starting, Kafka may be well
            return
        if error:
            self.waiting("kafka", repr(error))
            return
        self.waiting("kafka", None)
        self.note_progress(asked.result())

    def note_progress(self, progress: dict[TP, Progress]) -> None:
        """Where the assigned partitions stand now."""
        now = self._monotonic()
        for tp in self._progress.keys() - progress.keys():
            metrics.LAG.remove(tp.topic, tp.partition)
            self._moved.pop(tp, None)
        for tp, (next_offset, end_offset) in progress.items():
            metrics.LAG.labels(tp.topic, tp.partition).set(end_offset - next_offset)
            before = self._moved.get(tp)
            if before is None or before[0] != next_offset or next_offset >= end_offset:
                self._moved[tp] = (next_offset, now)
        self._progress = progress

    def report(self) -> dict[str, Any]:
        """What /ready answers; ready is true when there is no problem."""
        now = self._monotonic()
        problems = dict(self._problems)
        if now - self._checked_at > CHECK_EVERY_S + 2 * _CHECK_TIMEOUT_S:
            problems["worker"] = f"no check for {now - self._checked_at:.0f} s"
        for tp, (offset, since) in self._moved.items():
            if now - since > self._settings.stall_s:
                problems[f"{tp.topic}/{tp.partition}"] = f"no progress at offset {offset} for {now - since:.0f} s"
        return {
            "ready": not problems,
            "role": self._role,
            "release": self._release,
            "problems": problems,
            "partitions": {
                f"{tp.topic}/{tp.partition}": {"next_offset": done, "lag": end - done}
                for tp, (done, end) in sorted(self._progress.items())
            },
        }

    async def serve(self) -> int:
        """Start answering; returns the port. Raises SettingsError when it is taken."""

        async def live(_: web.Request) -> web.Response:
            return web.json_response({"live": True})

        async def ready(_: web.Request) -> web.Response:
            report = self.report()
            return web.json_response(report, status=200 if report["ready"] else 503)

        async def scrape(_: web.Request) -> web.Response:
            return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

        site = web.Application()
        site.add_routes([web.get("/live", live), web.get("/ready", ready), web.get("/metrics", scrape)])
        runner = self._runner = web.AppRunner(site, access_log=None)
        await runner.setup()
        host, port = self._settings.health_host, self._settings.health_port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SettingsError(
                f"cannot serve health at {host}:{port} ({error.strerror}); "
                "set TASTEWAVE_HEALTH_PORT, 0 takes a free one"
            ) from error
        return runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port."""
        if self._runner:
            await self._runner.cleanup()


def _server(error: BaseException) -> str:
    """Which server a record waits for."""
    return "redis" if is_redis_away(error) else "pool" if isinstance(error, PoolUnusable) else "kafka"
