"""What an editor looks at: the tracks that need one most, and the genre that the editor gives them."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, RequestBody, Schema
from litestar.params import QueryParameter

from models.contract import track_answer
from models.events import MAX_ID_BYTES, Id, TrackTagged
from stream.reader.reader import AnswerReader
from stream.serve.bodies import read_body
from stream.serve.feed import Feed
from stream.serve.lookups import AnyRequest, Guard, documents
from stream.serve.problems import BadRequest, SwitchedOff, documented
from stream.settings import Settings
from stream.tracks.editor import correct

_MOST_GENRES = 100
_WITHOUT = {"track_id", "release", "embedding", "content_hash"}
_FIELDS = tuple(name for name in TrackTagged.__struct_fields__ if name not in _WITHOUT)
After = Annotated[str | None, QueryParameter(name="after", description="`next` of the page before")]
Limit = Annotated[int, QueryParameter(ge=1, le=100, description="the most tracks of a page")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class ReviewPage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Tracks that need an editor, first those that need one most.

    Attributes:
        release: of the answers.
        tracks: of this page, without their embeddings.
        known_genres: names of the genres that tracks have, the most frequent first.
        may_correct: whether TASTEWAVE_SERVE_CORRECTIONS is on.
        next: what `after` of the next page has to be.
    """

    release: str
    tracks: list[TrackTagged]
    known_genres: list[str]
    may_correct: bool
    next: str | None = None


class Correction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which genre a track has, and who says so."""

    track_id: Id
    genre: _Text
    by: _Text


class Corrected(msgspec.Struct, frozen=True):
    """releases: those whose answers carry the editor's genre now; others will when the track has an answer."""

    track_id: str
    genre: str
    releases: list[str]


_correction = msgspec.json.Decoder(Correction)
_TEXT = Schema(type=OpenAPIType.STRING, min_length=1, max_length=256)
CORRECTION_BODY = RequestBody(
    description="Which genre a track has, and who says so.",
    content={
        "application/json": OpenAPIMediaType(
            schema=Schema(
                type=OpenAPIType.OBJECT,
                required=["track_id", "genre", "by"],
                properties={"track_id": _TEXT, "genre": _TEXT, "by": _TEXT},
                additional_properties=False,
            )
        )
    },
    required=True,
)


def review_routes(reader: AnswerReader, feed: Feed, *, settings: Settings, guard: Guard) -> list[Any]:
    """The routes; the guard stands before the one that changes something."""
    one_at_a_time = asyncio.Lock()  # an editor waits for Kafka, and the threads are those of searches too

    @get(
        "/v1/review",
        responses=documents(ReviewPage, "A page of tracks.") | documented(400, 503),
        tags=["review"],
    )
    async def review(after: After = None, limit: Limit = 20) -> ReviewPage:
        """The tracks that the release abstained from, the least confident first; then those that it is unsure of."""
        taste = feed.taste
        found = await taste.doubtful(after=_place(after) if after else (-math.inf, 0), limit=limit)
        held = await reader.tracks([one.id for one in found], _FIELDS, release=taste.release)
        tracks = [
            track_answer(
                one.id,
                taste.release,
                {name.encode(): value for name, value in zip(_FIELDS, values, strict=True) if value is not None},
            )
            for one, values in zip(found, held, strict=True)
            if values
        ]
        genres = taste.genres()
        return ReviewPage(
            release=taste.release,
            tracks=[track for track in tracks if track.status in ("tagged", "abstained")],
            known_genres=sorted(genres, key=lambda name: -genres[name])[:_MOST_GENRES],
            may_correct=settings.serve.corrections,
            next=f"{found[-1].rank!r}_{found[-1].row}" if len(found) == limit else None,
        )

    @post(
        "/v1/corrections",
        status_code=200,
        responses=documents(Corrected, "The correction is on Kafka, and in the answers of these releases.")
        | documented(400, 401, 403, 413, 415, 503),
        guards=[guard],
        tags=["review"],
    )
    async def corrections(request: AnyRequest) -> Corrected:
        """Say which genre a track has, whatever releases say, as `tastewave correct` does."""
        if not settings.serve.corrections:
            raise SwitchedOff("set TASTEWAVE_SERVE_CORRECTIONS=true, or run `tastewave correct`")
        said = await read_body(request, _correction)
        if (size := len(said.track_id.encode())) > MAX_ID_BYTES:
            raise BadRequest(f"an id has 1 to {MAX_ID_BYTES} bytes of UTF-8, and this one has {size}")
        async with one_at_a_time:
            releases = await asyncio.to_thread(correct, settings, said.track_id, said.genre, by=said.by)
        return Corrected(said.track_id, said.genre, releases)

    return [review, corrections]


def _place(text: str) -> tuple[float, int]:
    match = re.fullmatch(r"(-?[0-9.e-]{1,30})_([0-9]{1,18})", text)
    try:
        return float(match[1]), int(match[2])  # type: ignore[index]
    except (TypeError, ValueError):
        raise BadRequest("after is no `next` of a page") from None
