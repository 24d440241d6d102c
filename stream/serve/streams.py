"""GET /v1/events: what becomes of the live release, as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream

from stream.serve.feed import EventKind, Feed, FeedEvent
from stream.serve.lookups import Guard
from stream.serve.problems import BadRequest, documented

_LOOK_EVERY_S = 1.0
_SIGN_OF_LIFE_S = 15.0  # a proxy between may close a connection that is silent for a minute
_KINDS: dict[str, tuple[EventKind, ...]] = {
    "tracks": ("track", "track_removed"),
    "users": ("user", "user_removed"),
    "all": ("track", "track_removed", "user", "user_removed"),
}
Of = Annotated[
    Literal["tracks", "users", "all"], QueryParameter(name="of", description="what is told of; users need the token")
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(name="Last-Event-ID", description="id of the last event that was seen: goes on after it"),
]
_encode = msgspec.json.Encoder().encode


def event_routes(feed: Feed, *, guard: Guard) -> list[Any]:
    """The route; the guard stands before events of users."""

    @get(
        "/v1/events",
        responses={
            200: ResponseSpec(
                FeedEvent,
                media_type="text/event-stream",
                description="Each event has an id, a name (`event`: its kind) and JSON (`data`). The event `problem` "
                "says what keeps the stream from being fresh, such as Kafka away, and with null that this is over.",
                generate_examples=False,
            )
        }
        | documented(400, 401),
        tags=["events"],
    )
    async def events(request: Request[Any, Any, Any], of: Of = "tracks", last_event_id: LastEventId = None) -> Stream:
        """Tracks that were tagged and users who were refreshed, from now on or from where a client stopped."""
        if of != "tracks":
            guard(request, request.route_handler)
        try:
            told = feed.events(after=last_event_id or None, kinds=_KINDS[of])
        except ValueError as error:
            raise BadRequest(f"Last-Event-ID: {error}") from None
        return Stream(
            _lines(feed, told),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return [events]


async def _lines(feed: Feed, told: AsyncIterator[FeedEvent]) -> AsyncIterator[bytes]:
    """The lines of a stream. An event is never waited for with a timeout that would break off the feed's iterator."""
    loop = asyncio.get_running_loop()
    problem: str | None = None
    spoke_at = loop.time()
    yield b": events of the live release\n\n"
    coming = asyncio.ensure_future(anext(told))
    try:
        while True:
            await asyncio.wait([coming], timeout=_LOOK_EVERY_S)
            said = b""
            if (now := feed.state().problem) != problem:
                problem = now
                said += b"event: problem\ndata: %s\n\n" % _encode({"problem": problem})
            if coming.done():
                event = coming.result()
                said += b"id: %s\nevent: %s\ndata: %s\n\n" % (
                    event.event_id.encode(), event.kind.encode(), _encode(event),
                )  # fmt: skip
                coming = asyncio.ensure_future(anext(told))
            elif loop.time() - spoke_at > _SIGN_OF_LIFE_S:
                said += b":\n\n"
            if said:
                spoke_at = loop.time()
                yield said
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            await coming
        if close := getattr(told, "aclose", None):
            await close()
