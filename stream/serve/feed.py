"""The live release in this process: filled from Kafka's compacted topics, kept fresh, swapped when another is live."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any, Literal, NamedTuple, Self

import msgspec
import redis.exceptions
import structlog

from models.contract import TRACKS_TAGGED, USERS_EMBEDDED, live_key
from models.errors import TastewaveError
from stream.serve.places import Places
from stream.serve.reading import Reading, end
from stream.serve.taste import Change, Taste
from stream.settings import Settings
from stream.store.client import unusable

log = structlog.get_logger(__name__)

EventKind = Literal["track", "track_removed", "user", "user_removed", "release", "missed"]
_TOPICS: dict[str, tuple[EventKind, ...]] = {
    TRACKS_TAGGED: ("track", "track_removed"),
    USERS_EMBEDDED: ("user", "user_removed"),
}
_LOOK_EVERY_S = 1.0
_LOOKED_AT = 500


class NotCaughtUp(TastewaveError):
    """The feed cannot answer yet; its state says why."""


class FeedEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something that became of the live release.

    Attributes:
        event_id: to go on from, after this event (Last-Event-ID): the place in each partition, as text of letters,
            digits and punctuation.
        kind: track (answered), track_removed, user (refreshed), user_removed; release where another one has become
            live; missed where events were lost to this reader, who was too slow or away for too long. After these two,
            read again what you keep.
        release: of the answer; with release, the one that is live now.
        id: track_id or user_id; empty with release and missed.
        status: of a track: tagged, abstained, failed or corrected.
        genre: of a tagged track.
        at: tagged_at or refreshed_at, ms; 0 with the other kinds.
    """

    event_id: str
    kind: EventKind
    release: str
    id: str = ""
    status: str | None = None
    genre: str | None = None
    at: int = 0


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the feed stands, for /ready and the metrics.

    Attributes:
        caught_up: whether `Feed.taste` answers: all was read that the topics held when reading began. It stays true
            while Kafka is away: answers then grow old, and `problem` says so.
        release: that is answered from; None where there is none yet.
        loading: the live release, while it is being read beside the one that is answered from.
        lag: records that are not read yet, of the release that is answered from (or loading, before the first).
        problem: a sentence where Kafka or Redis is away, or no release is live.
        tracks: how many tracks of the release have an embedding.
        users: how many users are held.
        subscribers: how many read events.
        memory_bytes: of vectors, indexes and tables.
    """

    caught_up: bool
    release: str | None
    loading: str | None
    lag: int
    problem: str | None
    tracks: int
    users: int
    subscribers: int
    memory_bytes: int


class Feed:
    """The live release in this process.

        async with Feed(settings, redis=client) as feed:   # returns at once and reads in the background
            feed.state().caught_up
            hits = await feed.taste.similar("t1", k=20)
            async for event in feed.events(after=last_event_id, kinds={"track", "track_removed"}):
                ...

    When another release becomes live, it is read beside the one that is answered from, and takes its place when it has
    caught up. So for a while answers are of the release that was live before: `Taste.release` tells.

    Args:
        settings: how to reach Kafka, the topics and TASTEWAVE_SERVE_AUDIENCE_DAYS.
        redis: a redis.asyncio client (or RedisCluster) that returns bytes, for tw:live, which is read every second.
        now_ms: the clock.
    """

    def __init__(
        self, settings: Settings, *, redis: Any, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._now_ms = now_ms
        self._answering: _Running | None = None
        self._loading: _Running | None = None
        self._problem: str | None = "the live release is not read yet"
        self._bell = asyncio.Event()
        self._subscribers = 0
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following:
            await end(self._following)
        for running in (self._answering, self._loading):
            if running:
                await end(running.task)

    @property
    def taste(self) -> Taste:
        """The live release. Take it once for a request.

        Raises:
            NotCaughtUp: nothing can be answered yet; the message says why.
        """
        if self._answering is None:
            state = self.state()
            raise NotCaughtUp(f"{state.problem or f'{state.lag} records of Kafka are not read yet'}; try again later")
        return self._answering.reading.taste

    def state(self) -> FeedState:
        """Where the feed stands. It costs nothing."""
        told = self._answering or self._loading
        reading = told.reading if told else None
        tracks, users = reading.taste.sizes if reading else (0, 0)
        return FeedState(
            caught_up=self._answering is not None,
            release=self._answering.release if self._answering else None,
            loading=self._loading.release if self._loading else None,
            lag=reading.lag if reading else 0,
            problem=self._problem or (reading.problem if reading else None),
            tracks=tracks,
            users=users,
            subscribers=self._subscribers,
            memory_bytes=sum(one.reading.taste.nbytes for one in (self._answering, self._loading) if one),
        )

    def newest_tracks(self, count: int) -> list[Change]:
        """The newest tracks that were answered lately, as far as they stand in memory; newest first, each once."""
        if self._answering is None:
            return []
        reading = self._answering.reading
        log_of_topic, found = reading.logs[TRACKS_TAGGED], dict[str, Change]()
        for number in range(log_of_topic.end - 1, max(log_of_topic.begin, log_of_topic.end - _LOOKED_AT) - 1, -1):
            change = log_of_topic[number].change
            if change.kind in ("track", "track_removed") and reading.taste.knows(change):
                found.setdefault(change.id, change)
            if len(found) == count:
                break
        told = [change for change in found.values() if change.kind == "track"]
        return sorted(told, key=lambda change: -change.at)

    def events(
        self, *, after: str | None = None, kinds: Collection[EventKind] = ("track", "track_removed")
    ) -> AsyncGenerator[FeedEvent]:
        """What becomes of the live release, from now on or from where a reader stopped; without end.

        A reader goes on where it stopped, after a restart of this process too, as long as the events since then are
        among the newest that are kept. An event may come twice. A reader that is too slow misses events and is told so
        (missed). User events name people: guard them as you guard /users.

        Args:
            after: event_id of the last event that the reader has seen; from now on where it is None.
            kinds: those that are wanted; release and missed come in any case.

        Raises:
            ValueError: `after` is no event_id.
        """
        return self._events(Places.read(after) if after else None, kinds)

    async def _events(self, places: Places | None, kinds: Collection[EventKind]) -> AsyncGenerator[FeedEvent]:
        topics = [topic for topic, told in _TOPICS.items() if not set(told).isdisjoint(kinds)]
        self._subscribers += 1
        try:
            running = await self._answers()
            handed_in, places = places is not None, places or Places({})
            while True:
                events = self._events_of(running, topics, places, kinds, handed_in=handed_in)
                async with contextlib.aclosing(events):
                    async for event in events:
                        yield event
                running, handed_in = await self._answers(), False
                yield FeedEvent(event_id=str(places), kind="release", release=running.release)
        finally:
            self._subscribers -= 1

    async def _events_of(
        self,
        running: _Running,
        topics: Collection[str],
        places: Places,
        kinds: Collection[EventKind],
        *,
        handed_in: bool,
    ) -> AsyncGenerator[FeedEvent]:
        """The events of a release after these places, which go along, until another one is answered from.

        handed_in: the places are those of a reader who was away.
        """
        taste, logs = running.reading.taste, running.reading.logs
        numbers = {topic: places.follow(topic, logs[topic]) for topic in topics}
        lost = [places.skip_lost(topic, logs[topic], were_handed_in=handed_in) for topic in topics]
        if any(lost):
            yield FeedEvent(event_id=str(places), kind="missed", release=taste.release)
        while self._answering is running:
            bell = self._bell
            for topic in topics:
                log_of_topic = logs[topic]
                while numbers[topic] < log_of_topic.end:
                    if numbers[topic] < log_of_topic.begin:  # the reader was too slow
                        numbers[topic] = log_of_topic.begin
                        places.skip_lost(topic, log_of_topic)
                        yield FeedEvent(event_id=str(places), kind="missed", release=taste.release)
                        continue
                    partition, offset, change = log_of_topic[numbers[topic]]
                    numbers[topic] += 1
                    is_new = places.passes(topic, partition, offset)
                    if is_new and change.kind in kinds and taste.knows(change):
                        yield FeedEvent(
                            event_id=str(places),
                            kind=change.kind,
                            release=taste.release,
                            id=change.id,
                            status=change.status,
                            genre=change.genre,
                            at=change.at,
                        )
            await bell.wait()

    async def _answers(self) -> _Running:
        """What is answered from; waits until there is something."""
        while self._answering is None:
            await self._bell.wait()
        return self._answering

    def _ring(self) -> None:
        """Wake the readers of events."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def _follow(self) -> None:
        """Follow the live release until cancelled."""
        while True:
            wanted = await self._live()
            if wanted:
                await self._arrange(wanted)
            if self._loading:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self._loading.reading.caught_up.wait()
            else:
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _live(self) -> str | None:
        """The live release; the one that is followed already where Redis does not say."""
        try:
            live: bytes | None = await self._redis.hget(live_key(prefix=self._settings.redis.key_prefix), "release")
        except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
            self._problem = str(unusable(self._settings.redis, error))
        else:
            self._problem = None if live else "no release is live; start a worker, or run `tastewave release activate`"
            if live:
                return live.decode()
        followed = self._loading or self._answering
        return followed.release if followed else None

    async def _arrange(self, wanted: str) -> None:
        """Answer from the wanted release, or load it."""
        if self._loading and (self._loading.release != wanted or self._loading.is_over):
            await end(self._loading.task)
            self._loading = None
        if self._answering and self._answering.release == wanted and not self._answering.is_over:
            return
        if self._loading is None:
            self._loading = self._start(wanted)
        elif self._loading.reading.caught_up.is_set():
            before, self._answering, self._loading = self._answering, self._loading, None
            log.info("feed.answers", release=wanted, before=before.release if before else None)
            self._ring()
            if before:
                await end(before.task)

    def _start(self, release: str) -> _Running:
        taste = Taste(release, audience_days=self._settings.serve.audience_days, now_ms=self._now_ms)
        reading = Reading(self._settings, taste, on_events=self._ring, now_ms=self._now_ms)
        return _Running(reading, asyncio.create_task(reading.run()))


class _Running(NamedTuple):
    reading: Reading
    task: asyncio.Task[None]

    @property
    def release(self) -> str:
        return self.reading.taste.release

    @property
    def is_over(self) -> bool:
        """Whether it reads no more: Kafka's log was cut, or something unforeseen happened."""
        if self.task.done() and not self.task.cancelled() and (error := self.task.exception()):
            log.error("feed.crashed", error=repr(error))
        return self.task.done()
