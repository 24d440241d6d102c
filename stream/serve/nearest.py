"""What is near in the taste space of the live release: similar tracks, tracks for a user, an audience; and genres.

The feed finds them in memory. Redis is asked again about what was found, so that nobody who was forgotten a moment ago
is named. All of an answer is of the release of the feed.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from litestar import get
from litestar.params import QueryParameter

from models.errors import TastewaveError
from stream.reader.reader import AnswerReader
from stream.serve.feed import Feed
from stream.serve.ids import PathId, decoded
from stream.serve.lookups import Guard, documents, text, unknown
from stream.serve.problems import NoEmbedding, UnknownTrack, UnknownUser, documented
from stream.serve.taste import Hit

_TOLD = ("status", "genre", "confidence", "title", "artist_id")
MOST_HITS = 100
MOST_OF_GENRE = 500
Limit = Annotated[int, QueryParameter(ge=1, le=MOST_HITS, description="the most that are told")]
PageLimit = Annotated[int, QueryParameter(ge=1, le=MOST_OF_GENRE, description="the most tracks of a page")]
OfGenre = Annotated[
    str | None, QueryParameter(name="genre", description="only tracks that were tagged with this genre")
]
After = Annotated[str | None, QueryParameter(name="after", description="`next` of the page before")]


class FoundTrack(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A track that was found. score: dot product of the two embeddings; not there in the list of a genre."""

    track_id: str
    score: float | None = None
    genre: str | None = None
    confidence: float | None = None
    title: str | None = None
    artist_id: str | None = None


class SimilarTracks(msgspec.Struct, frozen=True, kw_only=True):
    """The nearest tracks of a track, best first."""

    release: str
    track_id: str
    tracks: list[FoundTrack]


class TracksFor(msgspec.Struct, frozen=True, kw_only=True):
    """The nearest tracks of a user, best first, without those that the user has heard, dislikes or has excluded."""

    release: str
    user_id: str
    tracks: list[FoundTrack]


class FoundUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user that was found. score: dot product of the two embeddings."""

    user_id: str
    score: float


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """The users that a track is nearest to, best first, of those who were active in the last days."""

    release: str
    track_id: str
    users: list[FoundUser]


class GenrePage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Tracks of a genre in the order of the bytes of their ids. next: what `after` of the next page has to be."""

    release: str
    genre: str
    tracks: list[FoundTrack]
    next: str | None = None


def nearest_routes(reader: AnswerReader, feed: Feed, *, guard: Guard) -> list[Any]:
    """The routes; the guard stands before those that name users."""

    @get(
        "/v1/tracks/{track_id:str}/similar",
        responses=documents(SimilarTracks, "The tracks.") | documented(400, 404, 503),
        tags=["nearest"],
    )
    async def similar(track_id: PathId, genre: OfGenre = None, limit: Limit = 20) -> SimilarTracks:
        """The nearest tracks of a track, without other copies of the same recording."""
        id_, taste = decoded(track_id), feed.taste
        hits = await taste.similar(id_, k=limit, genre=genre)
        if hits is None:
            raise await _no_place(reader, id_, taste.release)
        return SimilarTracks(
            release=taste.release, track_id=id_, tracks=await _tracks(reader, hits, release=taste.release)
        )

    @get(
        "/v1/users/{user_id:str}/tracks",
        responses=documents(TracksFor, "The tracks.") | documented(400, 401, 404, 503),
        guards=[guard],
        tags=["nearest"],
    )
    async def tracks_for(user_id: PathId, genre: OfGenre = None, limit: Limit = 20) -> TracksFor:
        """The nearest tracks of a user that are new to them."""
        id_, taste = decoded(user_id), feed.taste
        (user,) = await reader.users([id_], ("source", "embedding"), release=taste.release)
        if user is None:
            raise unknown(UnknownUser, id_, taste.release)
        vector, known = np.frombuffer(user[1] or b"", "<f4"), await reader.known_tracks(id_)
        hits = await taste.tracks_for(vector, k=limit, genre=genre, leave_out=known)
        return TracksFor(release=taste.release, user_id=id_, tracks=await _tracks(reader, hits, release=taste.release))

    @get(
        "/v1/tracks/{track_id:str}/audience",
        responses=documents(Audience, "The users.") | documented(400, 401, 404, 503),
        guards=[guard],
        tags=["nearest"],
    )
    async def audience(track_id: PathId, limit: Limit = 20) -> Audience:
        """Which users a track is for, such as a new one that nobody has heard."""
        id_, taste = decoded(track_id), feed.taste
        hits = await taste.audience(id_, k=limit)
        if hits is None:
            raise await _no_place(reader, id_, taste.release)
        held = await reader.users([hit.id for hit in hits], ("source",), release=taste.release)
        users = [FoundUser(user_id=hit.id, score=hit.score) for hit, user in zip(hits, held, strict=True) if user]
        return Audience(release=taste.release, track_id=id_, users=users)

    @get(
        "/v1/genres/{genre:str}/tracks",
        responses=documents(GenrePage, "A page of tracks.") | documented(400, 503),
        tags=["nearest"],
    )
    async def of_genre(genre: PathId, after: After = None, limit: PageLimit = 100) -> GenrePage:
        """The tracks that were tagged with a genre, page by page."""
        name, taste = decoded(genre), feed.taste
        ids = taste.tracks_of_genre(name, after=after, limit=limit)
        tracks = await _tracks(reader, [Hit(id_, 0.0) for id_ in ids], release=taste.release, scored=False)
        return GenrePage(release=taste.release, genre=name, tracks=tracks, next=ids[-1] if len(ids) == limit else None)

    return [similar, tracks_for, audience, of_genre]


async def _tracks(reader: AnswerReader, hits: list[Hit], *, release: str, scored: bool = True) -> list[FoundTrack]:
    """What Redis holds of tracks that were found; one that it does not hold any more is left out."""
    found = await reader.tracks([hit.id for hit in hits], _TOLD, release=release)
    return [
        FoundTrack(
            track_id=hit.id,
            score=hit.score if scored else None,
            genre=text(values[1]),
            confidence=None if values[2] is None else float(values[2]),
            title=text(values[3]),
            artist_id=text(values[4]),
        )
        for hit, values in zip(hits, found, strict=True)
        if values
    ]


async def _no_place(reader: AnswerReader, track_id: str, release: str) -> TastewaveError:
    """Why a track has no neighbours."""
    (values,) = await reader.tracks([track_id], ("status", "reason"), release=release)
    if values is None:
        return unknown(UnknownTrack, track_id, release)
    status, reason = text(values[0]), f" ({text(values[1])})" if values[1] else ""
    return NoEmbedding(f"{track_id!r} is {status}{reason}, and has no place in the taste space of release {release}")
