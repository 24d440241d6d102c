"""/live, /ready and /metrics on a port of the worker's own; readiness looks at progress against lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog
from aiohttp import web
from faust.exceptions import ConsumerNotStarted
from faust.types import TP
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from models.errors import SettingsError
from stream import metrics
from stream.broker.app import BatchApp, Progress
from stream.broker.publish import kafka_advice
from stream.settings import WorkerSettings
from stream.store.away import redis_advice

log = structlog.get_logger(__name__)

CHECK_EVERY_S = 1.0
_UNREADY_CHECK_EVERY_S = 0.1
_CHECK_TIMEOUT_S = 5.0
_REBALANCE_S = 15.0  # longer than a rebalance takes, with broker_rebalance_timeout and the seek that follows
_HOPELESS = 2
"""After so many times stall_s without a move a worker is not live. What waits for a server is no such case."""

Check = Callable[[], Awaitable[None]]
"""Returns when a server is well, raises when it is not."""


class Health:
    """What keeps a worker from being ready, checked every second against the servers themselves.

    Args:
        settings: where to serve, and how long a partition may stand still.
        release: release_id that the worker is pinned to.
        role: tracks or listens.
        server_of: the name of the server that is away, by the error that says so.
        redacted: takes passwords out of the texts of errors.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        release: str,
        role: str,
        server_of: Callable[[BaseException], str],
        redacted: Callable[[str], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._release = release
        self._role = role
        self._server_of = server_of
        self._redacted = redacted
        self._monotonic = monotonic
        self._problems = {"worker": "starting"}
        self._checked_at = self._monotonic()
        self._moved: dict[TP, tuple[int, float]] = {}
        self._no_flow_since: float | None = None
        self._away_at = self._monotonic()
        self._watching = False
        self._progress: dict[TP, Progress] = {}
        self._asking: asyncio.Task[dict[TP, Progress]] | None = None
        self._runner: web.AppRunner | None = None
        self._waiting: Callable[[], Iterable[BaseException]] = tuple
        metrics.RELEASE.info({"release": release, "role": role})
        for server in ("redis", "kafka"):
            metrics.SERVER_ERRORS.labels(server)  # from 0 on, or Prometheus would not see the first error

    def report_away(self, error: BaseException, *, server: str | None = None) -> None:
        """Note that a server is away: the one that the error names, unless `server` does. Logged when it is new."""
        server = server or self._server_of(error)
        reason = self._redacted(_told(error))
        if server not in self._problems:
            log.warning("server.away", server=server, error=reason)
        self._problems[server] = reason
        self._away_at = self._monotonic()
        metrics.WAITING.labels(server).set(1)
        metrics.SERVER_ERRORS.labels(server).inc()

    def report_back(self, server: str) -> None:
        """Note that a server has answered a check. It counts as back once no record waits for it any more."""
        if any(self._server_of(error) == server for error in self._waiting()):
            return
        if self._problems.pop(server, None) is not None:
            log.info("server.back", server=server)
        metrics.WAITING.labels(server).set(0)

    def note_flow(self, *, flows: bool) -> None:
        """Whether the worker, which has loaded its release, is in its consumer group and reads records."""
        if flows:
            self._problems.pop("worker", None)
            self._no_flow_since = None
        elif self._no_flow_since is None:
            self._no_flow_since = self._monotonic()

    def checked(self) -> None:
        """A round of checks has ended."""
        self._watching = True
        self._checked_at = self._monotonic()
        if self._problems.keys() - {"worker"}:
            self._away_at = self._checked_at

    async def watch(self, app: BatchApp, checks: Mapping[str, Check]) -> None:
        """Check Kafka and the named servers until cancelled, and log when readiness changes."""
        was_ready = False
        self._waiting = lambda: app.waiting
        while True:
            await asyncio.gather(self._check_kafka(app), *(self._check(*check) for check in checks.items()))
            metrics.IN_HAND.set(app.in_hand)
            self.checked()
            report = self.report()
            if report["ready"] != was_ready:
                was_ready = report["ready"]
                log.info("worker.ready" if was_ready else "worker.not_ready", problems=report["problems"])
            await asyncio.sleep(CHECK_EVERY_S if was_ready else _UNREADY_CHECK_EVERY_S)

    async def _check(self, server: str, check: Check) -> None:
        try:
            await asyncio.wait_for(check(), _CHECK_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker is not ready
            self.report_away(error, server=server)
        else:
            self.report_back(server)

    async def _check_kafka(self, app: BatchApp) -> None:
        self.note_flow(flows=app.flows)
        self._asking = self._asking or asyncio.create_task(app.progress())
        done, _ = await asyncio.wait([self._asking], timeout=_CHECK_TIMEOUT_S)
        if not done:  # asked once: questions would pile up in the consumer's thread while the broker is away
            self.report_away(TimeoutError(f"no answer in {_CHECK_TIMEOUT_S:g} s"), server="kafka")
            return
        asked, self._asking = self._asking, None
        error = asked.exception()
        if isinstance(error, ConsumerNotStarted):  # the worker is starting, Kafka may be well
            return
        if error:
            self.report_away(error, server="kafka")
            return
        self.report_back("kafka")
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
        metrics.STALLED.set(len(self._stalled(now)))

    def _stalled(self, now: float) -> dict[TP, tuple[int, float]]:
        """The partitions that have stood still for too long, each with its offset and since when."""
        return {tp: moved for tp, moved in self._moved.items() if now - moved[1] > self._settings.stall_s}

    def report(self) -> dict[str, Any]:
        """What /ready answers; ready is true when there is no problem."""
        now = self._monotonic()
        problems = dict(self._problems)
        if now - self._checked_at > CHECK_EVERY_S + 2 * _CHECK_TIMEOUT_S:
            problems["worker"] = f"no check for {now - self._checked_at:.0f} s"
        elif self._no_flow_since is not None and now - self._no_flow_since > _REBALANCE_S:
            problems["worker"] = f"no partitions are read for {now - self._no_flow_since:.0f} s"
        for tp, (offset, since) in self._stalled(now).items():
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

    def hopeless(self) -> str | None:
        """Why a supervisor should start this worker anew, although all servers are well; None where it need not."""
        if not self._watching or self._problems.keys() - {"worker"}:
            return None
        now = self._monotonic()
        moves = {"check": self._checked_at, "flow of records": self._no_flow_since or now} | {
            f"progress at offset {offset} of {tp.topic}/{tp.partition}": at for tp, (offset, at) in self._moved.items()
        }
        what, at = min(moves.items(), key=lambda move: move[1])
        still_s = now - max(at, self._away_at)
        return f"no {what} for {still_s:.0f} s" if still_s > _HOPELESS * self._settings.stall_s else None

    async def serve(self) -> int:
        """Start answering; returns the port. Raises SettingsError when it is taken."""

        async def live(_: web.Request) -> web.Response:
            if reason := self.hopeless():
                return web.json_response({"live": False, "reason": reason}, status=503)
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


def _told(error: BaseException) -> str:
    """What an error says, and what to do about it where its text does not say that."""
    text, advice = str(error) or type(error).__name__, redis_advice(error) or kafka_advice(error)
    return f"{text}; {advice}" if advice else text
