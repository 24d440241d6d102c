"""GET /v1/now: what is heard now and how the workers are, as they tell it in Redis.

It is looked up every second, whoever asks; an answer is made of what is in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec
from litestar import Response, get

from models.errors import TastewaveError
from stream.reader.reader import AnswerReader
from stream.serve.feed import Feed
from stream.serve.lookups import documents
from stream.serve.reading import end
from stream.store.workers import WorkerReport

_LOOK_EVERY_S = 1.0
_SPAN_MS = 5_000
_SPANS = 120
_SILENT_AFTER_MS, _GONE_AFTER_MS = 15_000, 600_000
_NEWEST = 30


class NewTrack(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A track that was answered lately. at: tagged_at, ms."""

    track_id: str
    at: int
    status: str | None = None
    genre: str | None = None


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Some five seconds.

    Attributes:
        at: their end, ms.
        ms: how long they were.
        tracks, listens: events that workers of the live release have done in them.
        dead_letters: how many of these became dead letters.
        lag: records that waited for these workers at the end.
    """

    at: int
    ms: int
    tracks: int
    listens: int
    dead_letters: int
    lag: int


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, as it was when it last spoke.

    Attributes:
        role: tracks or listens.
        release: that it is pinned to.
        started_at, at: when it started, and when it last spoke, ms.
        silent: it has not spoken for 15 s; after ten minutes it is not told any more.
        problems: what keeps it from being ready, a sentence each.
        lag: records that wait for it.
        in_hand: records, or batches of listens, that it is handling.
        processes: that hear tracks.
        restarts: processes that were lost and replaced since it started.
        done: events that it has done since it started, by outcome.
    """

    role: str
    release: str
    started_at: int
    at: int
    silent: bool
    problems: dict[str, str]
    lag: int
    in_hand: int
    processes: int
    restarts: int
    done: dict[str, int]


class NowState(msgspec.Struct, frozen=True, kw_only=True):
    """What is heard now.

    Attributes:
        at: when workers were last asked after, ms; 0 before the first time.
        problem: why they cannot be asked after, or why what is new is not fresh.
        release: the live release, as it is searched.
        workers: those that spoke in the last ten minutes, of all releases.
        dead_letters: how many events became dead letters since these workers started, by reason.
        spans: the last ten minutes, oldest first; since this server started.
        newest: the newest tracks that were answered in the last ten minutes, newest first.
    """

    at: int
    problem: str | None
    release: str | None
    workers: list[Worker]
    dead_letters: dict[str, int]
    spans: list[Span]
    newest: list[NewTrack]


class Now:
    """Follows the workers, from entering on until leaving.

    Args:
        reader: reads Redis.
        feed: the live release.
        now_ms: the clock.
    """

    def __init__(
        self, reader: AnswerReader, feed: Feed, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._reader = reader
        self._feed = feed
        self._now_ms = now_ms
        self._looked_at = 0
        self._problem: str | None = None
        self._reports: Sequence[WorkerReport] = ()
        self._spans = deque[Span](maxlen=_SPANS)
        self._before: tuple[int, dict[str, WorkerReport]] | None = None
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following:
            await end(self._following)

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Ask Redis once what workers say."""
        try:
            self._reports = await self._reader.workers()
        except TastewaveError as error:
            self._problem = str(error)
            return
        self._problem, self._looked_at = None, self._now_ms()
        self._note()

    def state(self) -> NowState:
        """What is known. It costs nothing but its own making."""
        now, feed = self._now_ms(), self._feed.state()
        alive = [one for one in self._reports if now - one.at < _GONE_AFTER_MS]
        return NowState(
            at=self._looked_at,
            problem=self._problem or feed.problem,
            release=feed.release,
            workers=[_told(one, now) for one in alive],
            dead_letters=dict(sum((Counter(one.dead_letters) for one in alive), Counter[str]()).most_common()),
            spans=list(self._spans),
            newest=[
                NewTrack(track_id=one.id, at=one.at, status=one.status, genre=one.genre)
                for one in self._feed.newest_tracks(_NEWEST)
            ],
        )

    def _note(self) -> None:
        """Add a span, where five seconds have gone by since the last one."""
        now, release = self._looked_at, self._feed.state().release
        if release is None:
            return
        working = {one.worker: one for one in self._reports if one.release == release and not _is_silent(one, now)}
        if self._before is None:
            self._before = now, working
        since, before = self._before
        if now - since < _SPAN_MS:
            return
        done, dead_letters = Counter[str](), 0
        for name, one in working.items():
            # A worker that was not there before has done all of it since, if it has started since
            earlier = before.get(name)
            if earlier or one.started_at >= since:
                done[one.role] += _count(one.done) - (_count(earlier.done) if earlier else 0)
                dead_letters += _count(one.dead_letters) - (_count(earlier.dead_letters) if earlier else 0)
        lag = sum(one.lag for one in working.values())
        self._spans.append(
            Span(
                at=now, ms=now - since, tracks=done["tracks"], listens=done["listens"], dead_letters=dead_letters,
                lag=lag,
            )
        )  # fmt: skip
        self._before = now, working


def now_routes(now: Now) -> list[Any]:
    """The route."""
    made_at, body = 0.0, b""

    @get("/v1/now", responses=documents(NowState, "What is known."), tags=["release"])
    async def told() -> Response[bytes]:
        """Tracks that were answered lately, how fast events are done, and how the workers are."""
        nonlocal made_at, body
        if time.monotonic() - made_at >= _LOOK_EVERY_S:
            made_at, body = time.monotonic(), msgspec.json.encode(now.state())
        return Response(body, media_type="application/json")

    return [told]


def _told(one: WorkerReport, now: int) -> Worker:
    return Worker(
        role=one.role, release=one.release, started_at=one.started_at, at=one.at, silent=_is_silent(one, now),
        problems=one.problems, lag=one.lag, in_hand=one.in_hand, processes=one.processes, restarts=one.restarts,
        done=one.done,
    )  # fmt: skip


def _is_silent(one: WorkerReport, now: int) -> bool:
    return now - one.at > _SILENT_AFTER_MS


def _count(counted: dict[str, int]) -> int:
    return sum(counted.values())
