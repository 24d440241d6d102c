"""The release that is live, and what an operator looks at: /live, /ready, /metrics."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from stream import metrics
from stream.reader.reader import AnswerReader, RedisAway
from stream.serve.feed import Feed
from stream.serve.lookups import documents
from stream.serve.problems import NothingLive, documented

_LIVE = ("release", "contract", "previous", "since")


class LiveRelease(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The live release.

    Attributes:
        release: its id.
        contract: version of the contract.
        previous: the release that was live before.
        since: when it became live, ms.
        searched: the release that neighbours are answered from; for a moment after a switch it is the one before.
        tracks: how many tracks of it have a place in taste space.
        users: how many users of the last days are held.
    """

    release: str
    contract: int
    previous: str | None = None
    since: int | None = None
    searched: str | None = None
    tracks: int = 0
    users: int = 0


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are answered.

    Attributes:
        ready: Redis answers, a release is live, and it has been read once. Kafka may be away: reads go on, and what is
            near grows old.
        release: that neighbours are answered from.
        loading: the release that is being read beside it.
        lag: records that are not read yet.
        problems: what is wrong, by the name of the server.
    """

    ready: bool
    release: str | None
    loading: str | None
    lag: int
    problems: dict[str, str]


def operation_routes(reader: AnswerReader, feed: Feed) -> list[Any]:
    """The routes."""

    @get(
        "/v1/release",
        responses=documents(LiveRelease, "The live release.") | documented(503),
        tags=["release"],
    )
    async def release() -> LiveRelease:
        """Which release is live."""
        (live, contract, previous, since), state = await reader.live_fields(_LIVE), feed.state()
        if not live:
            raise NothingLive("start a worker, or run `tastewave release activate`")
        return LiveRelease(
            release=live.decode(),
            contract=int(contract or 1),
            previous=previous.decode() if previous else None,
            since=int(since) if since else None,
            searched=state.release,
            tracks=state.tracks,
            users=state.users,
        )

    @get("/live", include_in_schema=False)
    async def is_live() -> dict[str, bool]:
        """That this process answers at all."""
        return {"live": True}

    @get("/ready", include_in_schema=False)
    async def is_ready() -> Response[Readiness]:
        """Whether requests should come here, and what is wrong."""
        state, problems = feed.state(), dict[str, str]()
        if state.problem:
            problems["feed"] = state.problem
        try:
            (live,) = await reader.live_fields(("release",))
            if not live:
                problems["redis"] = "no release is live; start a worker, or run `tastewave release activate`"
        except RedisAway as error:
            live = None
            problems["redis"] = str(error)
        if not state.caught_up:
            problems.setdefault("feed", f"the live release is being read, {state.lag} records are left")
        ready = bool(live) and state.caught_up
        report = Readiness(ready=ready, release=state.release, loading=state.loading, lag=state.lag, problems=problems)
        return Response(report, status_code=200 if ready else 503)

    @get("/metrics", include_in_schema=False)
    async def scrape() -> Response[bytes]:
        """What Prometheus reads."""
        state = feed.state()
        metrics.FEED_LAG.set(state.lag)
        metrics.FEED_TRACKS.set(state.tracks)
        metrics.FEED_USERS.set(state.users)
        metrics.FEED_MEMORY.set(state.memory_bytes)
        metrics.EVENT_STREAMS.set(state.subscribers)
        return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return [release, is_live, is_ready, scrape]
