"""Tracks and users as Redis holds them: one, or up to 500 at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from litestar.types import ASGIApp

from models.events import MAX_ID_BYTES, Id, TrackTagged
from stream.reader.reader import IDS_AT_ONCE, AnswerReader, Values
from stream.serve.answers import Answers, User, etag_of, format_of
from stream.serve.ids import PathId, decoded
from stream.serve.problems import BadRequest, NothingLive, NoToken, Refusal, UnknownTrack, UnknownUser, documented

AnyRequest = Request[Any, Any, Any]
Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], None]

_TRACKS = Answers(TrackTagged, id_name="track_id", plural="tracks")
_USERS = Answers(User, id_name="user_id", plural="users")
_CACHING = {
    _TRACKS: b"public, max-age=1",  # no longer than a reader may keep the live release
    _USERS: b"private, no-cache",  # a user who was forgotten is unknown at once
}

Only = Annotated[
    str | None,
    QueryParameter(
        name="fields",
        description="comma-separated names of the fields that are wanted; those that an answer always has come anyway",
    ),
]


class Ids(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids of tracks, or of users."""

    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=IDS_AT_ONCE)]


_decode = msgspec.json.Decoder(Ids).decode


class TrackBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one release: the tracks that it knows, in the order of the ids, and the ids of the others."""

    release: str
    tracks: list[TrackTagged]
    unknown: list[str]


class UserBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Users of one release: those that it knows, in the order of the ids, and the ids of the others."""

    release: str
    users: list[User]
    unknown: list[str]


def documents(kind: type[msgspec.Struct], description: str) -> dict[int, ResponseSpec]:
    """The answer of a route, for the OpenAPI document."""
    return {200: ResponseSpec(kind, description=description, generate_examples=False)}


def bearer(token: str | None) -> Guard:
    """A guard that lets only requests with this token through; all where there is none."""
    expected = f"Bearer {token}".encode()

    def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if token and not secrets.compare_digest(connection.headers.get("authorization", "").encode(), expected):
            raise NoToken("send `Authorization: Bearer` and the token of TASTEWAVE_SERVE_TOKEN")

    return guard


def lookup_routes(reader: AnswerReader, *, guard: Guard) -> list[Any]:
    """The routes, reading from Redis; the guard stands before those of users."""

    @get(
        "/v1/tracks/{track_id:str}",
        responses=documents(
            TrackTagged, "The answer: tagged, abstained, failed with a reason, or corrected by an editor."
        )
        | documented(400, 404, 406, 503),
        tags=["tracks"],
    )
    async def track(request: AnyRequest, track_id: PathId, only: Only = None) -> ASGIApp:
        """What the live release says of a track."""
        id_, asked, release = decoded(track_id), _Asked(request, _TRACKS, only), await live(reader)
        (values,) = await reader.tracks([id_], asked.reading.names, release=release)
        if values is None:
            raise unknown(UnknownTrack, id_, release)
        return asked.one(id_, values, release=release)

    @post(
        "/v1/tracks/batch",
        status_code=200,
        responses=documents(TrackBatch, "The answers.") | documented(400, 406, 413, 503),
        tags=["tracks"],
    )
    async def tracks(request: AnyRequest, only: Only = None) -> ASGIApp:
        """What the live release says of up to 500 tracks."""
        ids, asked, release = read_ids(await request.body()), _Asked(request, _TRACKS, only), await live(reader)
        found = await reader.tracks(ids, asked.reading.names, release=release)
        return asked.many(ids, found, release=release)

    @get(
        "/v1/users/{user_id:str}",
        responses=documents(User, "The user.") | documented(400, 401, 404, 406, 503),
        guards=[guard],
        tags=["users"],
    )
    async def user(request: AnyRequest, user_id: PathId, only: Only = None) -> ASGIApp:
        """Where a user stands in the taste space of the live release."""
        id_, asked, release = decoded(user_id), _Asked(request, _USERS, only), await live(reader)
        (values,) = await reader.users([id_], asked.reading.names, release=release)
        if values is None:
            raise unknown(UnknownUser, id_, release)
        return asked.one(id_, values, release=release)

    @post(
        "/v1/users/batch",
        status_code=200,
        responses=documents(UserBatch, "The users.") | documented(400, 401, 406, 413, 503),
        guards=[guard],
        tags=["users"],
    )
    async def users(request: AnyRequest, only: Only = None) -> ASGIApp:
        """Where up to 500 users stand."""
        ids, asked, release = read_ids(await request.body()), _Asked(request, _USERS, only), await live(reader)
        found = await reader.users(ids, asked.reading.names, release=release)
        return asked.many(ids, found, release=release)

    return [track, tracks, user, users]


async def live(reader: AnswerReader) -> str:
    """The live release, for one request. Raises NothingLive."""
    if release := await reader.live():
        return release
    raise NothingLive("start a worker, or run `tastewave release activate`")


def text(value: bytes | None) -> str | None:
    """A field of Redis that is text; None where it is not there."""
    return None if value is None else value.decode()


def unknown(kind: type[Refusal], id_: str, release: str) -> Refusal:
    """A track or user of whom a release knows nothing."""
    return kind(f"release {release} knows nothing of {id_!r}")


def read_ids(body: bytes) -> list[str]:
    """The ids that a batch asks for. Raises BadRequest.

    Litestar would decode the body twice, first without its type.
    """
    try:
        ids = _decode(body).ids
        longest = max(len(id_.encode()) for id_ in ids)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f'the body is no {{"ids": ["...", ...]}} of 1 to {IDS_AT_ONCE} ids ({error})') from None
    if longest > MAX_ID_BYTES:
        raise BadRequest(f"an id has 1 to {MAX_ID_BYTES} bytes of UTF-8, and one of these has {longest}")
    return ids


class _Asked:
    """How one request wants to be answered. Raises BadRequest, NotAcceptable."""

    def __init__(self, request: AnyRequest, answers: Answers, only: str | None) -> None:
        self._headers = request.scope["headers"]
        self._answers = answers
        self._format = format_of(self._headers)
        self.reading = answers.reading(self._format, only)

    def one(self, id_: str, values: Values, *, release: str) -> ASGIApp:
        body = self._answers.one(id_, values, self.reading, release=release, format_=self._format)
        tag = etag_of(body)
        headers = [*self._common(release), (b"etag", tag), (b"cache-control", _CACHING[self._answers])]
        for name, value in self._headers:
            if name == b"if-none-match" and matches(value, tag):
                return _Answer(b"", headers, status=304)
        return _Answer(body, headers)

    def many(self, ids: list[str], found: list[Values | None], *, release: str) -> ASGIApp:
        body = self._answers.many(ids, found, self.reading, release=release, format_=self._format)
        return _Answer(body, self._common(release))

    def _common(self, release: str) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", self._format.value.encode()),
            (b"vary", b"accept"),
            (b"tastewave-release", release.encode()),
        ]


class _Answer:
    """An answer as an ASGI application. Litestar's Response takes a third of the time of a whole request."""

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]], *, status: int = 200) -> None:
        self._body = body
        self._headers = headers
        self._status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - as ASGI has it
        if self._status == 200:
            self._headers.append((b"content-length", b"%d" % len(self._body)))
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})


def matches(none_match: bytes, tag: bytes) -> bool:
    """Whether If-None-Match names an entity tag."""
    return none_match.strip() == b"*" or tag in [one.strip().removeprefix(b"W/") for one in none_match.split(b",")]
