"""The taste map over HTTP: its points, the places of tracks and users in it, and a search by id and title."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from litestar import Request, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter

from stream.reader.reader import IDS_AT_ONCE, AnswerReader
from stream.serve.feed import Feed
from stream.serve.ids import PathId, decoded
from stream.serve.lookups import Guard, documents, matches, read_ids, text, unknown
from stream.serve.problems import UnknownPoint, UnknownUser, documented
from stream.serve.taste import Taste
from stream.serve.taste_map import MOST_POINTS, TasteMap, TasteMaps

MOST_FOUND = 20
_LONGEST_TITLE = 200  # letters of a title that are searched
_TOLD = ("status", "genre", "title", "artist_id")
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
        genre: its genre.
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


class MapBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Tracks in the map, in the order of the ids that were asked for, and the ids of those without a place."""

    version: str
    tracks: list[MapTrack]
    unknown: list[str]


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
                "`points`, `dimensions`, `variance`, `box` (least x, least y, greatest x, greatest y) and `genres`. "
                "Then uint16: the x of all points, their y (0 to 65535 across the box), and the numbers of their "
                "genres (65535: none). All of it is little-endian.",
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
        is_of_it = version == drawn.head.version and number < len(drawn.rows)
        for track in await _told(reader, drawn, _of_points(drawn, [number] if is_of_it else [])):
            return track
        raise UnknownPoint(f"the map is {drawn.head.version} now, or the track has left; read /v1/map again")

    @post(
        "/v1/map/tracks/batch",
        status_code=200,
        responses=documents(MapBatch, "The places.") | documented(400, 413, 503),
        tags=["map"],
    )
    async def batch(request: Request[Any, Any, Any]) -> MapBatch:
        """Where up to 500 tracks stand in the map, also those that came after it was drawn."""
        ids, taste = read_ids(await request.body()), feed.taste
        drawn = await maps.kept(taste)
        placed = await _placed(reader, drawn, taste, ids)
        known = {track.track_id for track in placed}
        unknown = [track_id for track_id in ids if track_id not in known]
        return MapBatch(version=drawn.head.version, tracks=placed, unknown=unknown)

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
        tracks = [track for track in await _told(reader, drawn, _of_points(drawn, points)) if track.track_id != sought]
        exact = await _placed(reader, drawn, taste, [sought])
        return MapFound(version=drawn.head.version, tracks=[*exact, *tracks][:MOST_FOUND])

    return [taste_map, point, batch, user, search]


async def _placed(reader: AnswerReader, drawn: TasteMap, taste: Taste, track_ids: Sequence[str]) -> list[MapTrack]:
    """Those tracks that have an embedding, each once."""
    held = {track_id: place for track_id in track_ids if (place := taste.place_of(track_id))}
    if drawn.projection is None or not held:
        return []
    places = drawn.projection.place([vector for _, vector in held.values()]).tolist()
    points = [
        point if (point := drawn.point(row)) is not None and drawn.track_ids[point] == track_id else None
        for track_id, (row, _) in held.items()
    ]
    return await _told(reader, drawn, list(zip(held, points, places, strict=True)))


async def _told(
    reader: AnswerReader, drawn: TasteMap, tracks: Sequence[tuple[str, int | None, list[float]]]
) -> list[MapTrack]:
    """Tracks by their ids, with their points and places."""
    found = await reader.tracks([track_id for track_id, *_ in tracks], _TOLD, release=drawn.head.release)
    return [
        MapTrack(
            version=drawn.head.version,
            track_id=track_id,
            x=x,
            y=y,
            point=point,
            genre=text(values[1]) if values else None,
            title=text(values[2]) if values else None,
            artist_id=text(values[3]) if values else None,
        )
        for (track_id, point, (x, y)), values in zip(tracks, found, strict=True)
    ]


def _of_points(drawn: TasteMap, points: Sequence[int]) -> list[tuple[str, int | None, list[float]]]:
    """The tracks of points, but for those that have left."""
    named = ((drawn.track_ids[point], point) for point in points)
    return [(track_id, point, drawn.places[point].tolist()) for track_id, point in named if track_id is not None]


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
            found = await self._reader.tracks(ids, ("status", "title"), release=drawn.head.release)
            titles += [(text(values[1]) or "")[:_LONGEST_TITLE].casefold() if values else "" for values in found]
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
