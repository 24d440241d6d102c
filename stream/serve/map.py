"""The taste map over HTTP: its points, the places of tracks and users in it, and a search by id and title."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from litestar import Request, Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter

from stream.reader.reader import IDS_AT_ONCE, AnswerReader
from stream.serve.feed import Feed
from stream.serve.ids import PathId, decoded
from stream.serve.lookups import Guard, documents, matches, unknown
from stream.serve.nearest import no_place
from stream.serve.problems import UnknownPoint, UnknownUser, documented
from stream.serve.taste import Taste
from stream.serve.taste_map import MOST_POINTS, TasteMap, TasteMaps

MOST_FOUND = 20
_LONGEST_TITLE = 200  # letters of a title that are searched
_TOLD = ("status", "title", "artist_id")
Number = Annotated[int, PathParameter(ge=0, lt=MOST_POINTS, description="of the point, from 0")]
Version = Annotated[str, QueryParameter(max_length=64, description="`version` of the map that the point is of")]
Sought = Annotated[
    str, QueryParameter(name="q", min_length=1, max_length=256, description="start of an id, or part of a title")
]


class MapTrack(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A track in the map.

    Attributes:
        version: of the map that x and y belong to.
        track_id: of the track.
        x: along the first axis.
        y: along the second axis.
        point: its number in the map; not there where the map does not show it, as where it is new.
        genre: with which it was tagged.
        title: of its upload.
        artist_id: of its upload.
    """

    version: str
    track_id: str
    x: float
    y: float
    point: int | None = None
    genre: str | None = None
    title: str | None = None
    artist_id: str | None = None


class MapUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user in the map, and when their embedding was computed, ms."""

    version: str
    user_id: str
    x: float
    y: float
    source: str
    refreshed_at: int


class MapFound(msgspec.Struct, frozen=True, kw_only=True):
    """The tracks that a search found, best first."""

    version: str
    tracks: list[MapTrack]


def map_routes(reader: AnswerReader, feed: Feed, *, guard: Guard) -> list[Any]:
    """The routes; the guard stands before the one that names users."""
    maps, titles = TasteMaps(), _Titles(reader)

    @get(
        "/v1/map",
        responses={
            200: ResponseSpec(
                bytes,
                media_type="application/octet-stream",
                description="The length of the head (uint32), and the head: JSON with `version`, `release`, `tracks`, "
                "`points`, `variance`, `box` (least x, least y, greatest x, greatest y) and `genres`. Then uint16: the "
                "x of all points, their y (0 to 65535 across the box), and the numbers of their genres (65535: none). "
                "All of it is little-endian.",
                generate_examples=False,
            )
        }
        | documented(503),
        tags=["map"],
    )
    async def taste_map(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The tracks of the live release in two dimensions (PCA), at most 50,000; of more a sample that stays."""
        drawn = await maps.newest(feed.taste)
        tag = f'"{drawn.head.version}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if matches(request.headers.get("if-none-match", "").encode(), tag.encode()):
            return Response(b"", status_code=304, headers=headers)
        body = drawn.body
        if "gzip" in request.headers.get("accept-encoding", ""):
            body, headers["Content-Encoding"] = drawn.packed, "gzip"
        return Response(body, media_type="application/octet-stream", headers=headers)

    @get(
        "/v1/map/points/{number:int}",
        responses=documents(MapTrack, "The track.") | documented(400, 404, 503),
        tags=["map"],
    )
    async def point(number: Number, version: Version) -> MapTrack:
        """Which track a point of the map is."""
        taste = feed.taste
        drawn = await maps.kept(taste)
        track_id = drawn.track_ids[number] if version == drawn.head.version and number < len(drawn.rows) else None
        if track_id is None:
            raise UnknownPoint(f"the map is {drawn.head.version} now, or the track has left; read /v1/map again")
        (track,) = await _told(reader, drawn, [number])
        return track

    @get(
        "/v1/map/tracks/{track_id:str}",
        responses=documents(MapTrack, "The place.") | documented(400, 404, 503),
        tags=["map"],
    )
    async def track(track_id: PathId) -> MapTrack:
        """Where a track stands in the map, also one that came after the map was drawn."""
        id_, taste = decoded(track_id), feed.taste
        placed = await _placed(reader, await maps.kept(taste), taste, id_)
        if placed is None:
            raise await no_place(reader, id_, taste.release)
        return placed

    @get(
        "/v1/map/users/{user_id:str}",
        responses=documents(MapUser, "The place.") | documented(400, 401, 404, 503),
        guards=[guard],
        tags=["map"],
    )
    async def user(user_id: PathId) -> MapUser:
        """Where a user stands in the map."""
        id_, taste = decoded(user_id), feed.taste
        drawn = await maps.kept(taste)
        (values,) = await reader.users([id_], ("source", "embedding", "refreshed_at"), release=taste.release)
        if values is None or drawn.projection is None:
            raise unknown(UnknownUser, id_, taste.release)
        x, y = drawn.projection.place(np.frombuffer(values[1] or b"", "<f4")).tolist()
        return MapUser(
            version=drawn.head.version,
            user_id=id_,
            x=x,
            y=y,
            source=(values[0] or b"").decode(),
            refreshed_at=int(values[2] or 0),
        )

    @get(
        "/v1/map/search",
        responses=documents(MapFound, "The tracks.") | documented(400, 503),
        tags=["map"],
    )
    async def search(sought: Sought) -> MapFound:
        """Tracks of the map by the start of an id or a part of a title; one that it does not show by its whole id."""
        taste = feed.taste
        drawn = await maps.kept(taste)
        points = await titles.found(drawn, sought)
        tracks = [track for track in await _told(reader, drawn, points) if track.track_id != sought]
        exact = await _placed(reader, drawn, taste, sought)
        return MapFound(version=drawn.head.version, tracks=[*([exact] if exact else []), *tracks][:MOST_FOUND])

    return [taste_map, point, track, user, search]


async def _placed(reader: AnswerReader, drawn: TasteMap, taste: Taste, track_id: str) -> MapTrack | None:
    """A track by its id; None where it has no embedding."""
    held = taste.place_of(track_id)
    if held is None or drawn.projection is None:
        return None
    row, vector = held
    if (point := drawn.point(row)) is not None and drawn.track_ids[point] == track_id:
        (placed,) = await _told(reader, drawn, [point])
        return placed
    x, y = drawn.projection.place(vector).tolist()
    (values,) = await reader.tracks([track_id], (*_TOLD, "genre"), release=taste.release)
    _, title, artist_id, genre = values or [None] * 4
    return MapTrack(
        version=drawn.head.version, track_id=track_id, x=x, y=y, genre=_text(genre), title=_text(title),
        artist_id=_text(artist_id),
    )  # fmt: skip


async def _told(reader: AnswerReader, drawn: TasteMap, points: Sequence[int]) -> list[MapTrack]:
    """The tracks of points, but for those that have left."""
    named = [(point, track_id) for point in points if (track_id := drawn.track_ids[point]) is not None]
    found = await reader.tracks([track_id for _, track_id in named], _TOLD, release=drawn.head.release)
    return [
        MapTrack(
            version=drawn.head.version,
            track_id=track_id,
            x=float(drawn.places[point, 0]),
            y=float(drawn.places[point, 1]),
            point=point,
            genre=drawn.genre(point),
            title=_text(values[1]) if values else None,
            artist_id=_text(values[2]) if values else None,
        )
        for (point, track_id), values in zip(named, found, strict=True)
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


class _Titles:
    """Finds points by id and title. The titles of a map are read from Redis when it is first searched."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader
        self._version = ""
        self._titles: list[str] = []
        self._reading = asyncio.Lock()

    async def found(self, drawn: TasteMap, sought: str) -> list[int]:
        """The points whose id begins with a text or whose title has it, those that begin with it first."""
        async with self._reading:
            if self._version != drawn.head.version:
                self._titles = await self._read(drawn)
                self._version = drawn.head.version
            titles = self._titles
        return await asyncio.to_thread(_matching, drawn.track_ids, titles, sought)

    async def _read(self, drawn: TasteMap) -> list[str]:
        titles: list[str] = []
        for begin in range(0, len(drawn.track_ids), IDS_AT_ONCE):
            ids = [track_id or "" for track_id in drawn.track_ids[begin : begin + IDS_AT_ONCE]]
            found = await self._reader.tracks(ids, _TOLD[:2], release=drawn.head.release)
            titles += [(_text(values[1]) or "")[:_LONGEST_TITLE].casefold() if values else "" for values in found]
        return titles


def _matching(track_ids: Sequence[str | None], titles: Sequence[str], sought: str) -> list[int]:
    part = sought.casefold()
    begins, holds = list[int](), list[int]()
    for point, (track_id, title) in enumerate(zip(track_ids, titles, strict=True)):
        if title.startswith(part) or (track_id and track_id.startswith(sought)):
            begins.append(point)
        elif part in title:
            holds.append(point)
        if len(begins) == MOST_FOUND:
            break
    return [*begins, *holds][:MOST_FOUND]
