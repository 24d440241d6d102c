"""The live release in this process: filled from Kafka's compacted topics, kept fresh, swapped when another is live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any, Literal, Self

import msgspec

from models.errors import TastewaveError
from stream.serve.taste import Taste
from stream.settings import Settings

EventKind = Literal["track", "track_removed", "user", "user_removed", "missed"]


class NotCaughtUp(TastewaveError):
    """The feed cannot answer yet; its state says why."""


class FeedEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something that became of the live release.

    Attributes:
        event_id: to go on from, after this event (Last-Event-ID): the place in each partition, as text of letters,
            digits and punctuation.
        kind: track (answered), track_removed, user (refreshed), user_removed; missed where events were lost to this
            reader, who was too slow or away for too long: then read again what you keep.
        release: of the answer.
        id: track_id or user_id; empty with missed.
        status: of a track: tagged, abstained or failed.
        genre: of a tagged track.
        at: tagged_at or refreshed_at, ms; 0 with removed and missed.
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

    Args:
        settings: how to reach Kafka, the topics and TASTEWAVE_SERVE_AUDIENCE_DAYS.
        redis: a redis.asyncio client (or RedisCluster) that returns bytes, for tw:live, which is read every second.
    """

    def __init__(self, settings: Settings, *, redis: Any) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError

    @property
    def taste(self) -> Taste:
        """The live release. Take it once for a request.

        Raises:
            NotCaughtUp: nothing can be answered yet; the message says why.
        """
        raise NotImplementedError

    def state(self) -> FeedState:
        """Where the feed stands. It costs nothing."""
        raise NotImplementedError

    def events(
        self, *, after: str | None = None, kinds: Collection[EventKind] = ("track", "track_removed")
    ) -> AsyncIterator[FeedEvent]:
        """What becomes of the live release, from now on or from where a reader stopped; without end.

        A reader goes on where it stopped, after a restart of this process too, as long as the events since then are
        among the newest that are kept. An event may come twice. A reader that is too slow misses events and is told so
        (missed).
        User events name people: guard them as you guard /users.

        Args:
            after: event_id of the last event that the reader has seen; from now on where it is None.
            kinds: those that are wanted; missed comes in any case.

        Raises:
            ValueError: `after` is no event_id.
        """
        raise NotImplementedError
