"""What the HTTP API answers when it cannot do what was asked: problem details (RFC 9457)."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec

from models.errors import TastewaveError
from stream.broker.operator import KafkaUnusable
from stream.broker.redrive import RedriveFailed
from stream.reader.reader import RedisAway
from stream.serve.feed import NotCaughtUp
from stream.store.away import ForeignValue
from stream.store.client import RedisUnusable
from stream.tracks.editor import CorrectionFailed

log = structlog.get_logger(__name__)

PROBLEM = "application/problem+json"
_RETRY_AFTER_S = 1


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why a request was not answered (RFC 9457).

    Attributes:
        type: what kind of problem it is: urn:tastewave:problem: and its name, or about:blank where the status says all.
        title: the same in words.
        status: of HTTP.
        detail: what is wrong with this request, and what to do.
    """

    type: str
    title: str
    status: int
    detail: str | None = None


class Refusal(TastewaveError):
    """A request that is not answered, and why."""

    kind: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]
    headers: ClassVar[dict[str, str]] = {}


class BadRequest(Refusal):
    """An id, a field or a cursor is not one."""

    kind, title, status = "bad-request", "The request cannot be read", 400


class NoToken(Refusal):
    """The bearer token is missing or another one."""

    kind, title, status = "no-token", "A bearer token is needed", 401
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class SwitchedOff(Refusal):
    """A setting does not allow it."""

    kind, title, status = "switched-off", "A setting does not allow this", 403


class ForeignHost(Refusal):
    """A server on loopback is called by a name that is not of loopback."""

    kind, title, status = "foreign-host", "The Host header names another server", 421


class UnknownTrack(Refusal):
    """The live release knows no such track."""

    kind, title, status = "unknown-track", "The track is unknown", 404


class UnknownUser(Refusal):
    """The live release knows no such user, or the user was forgotten."""

    kind, title, status = "unknown-user", "The user is unknown", 404


class NoEmbedding(Refusal):
    """The track is known, and has no place in taste space."""

    kind, title, status = "no-embedding", "There is no embedding", 404


class NoTaggram(Refusal):
    """The track is known, and Redis holds no taggram of it."""

    kind, title, status = "no-taggram", "There is no taggram", 404


class NoAudio(Refusal):
    """The audio of the track is not served."""

    kind, title, status = "no-audio", "The audio is not served", 404


class NoSuchRange(Refusal):
    """The bytes that were asked for lie behind the end of the file."""

    kind, title, status = "no-such-range", "The file is shorter", 416


class UnknownPoint(Refusal):
    """The point is of a map that was replaced, or its track has left."""

    kind, title, status = "unknown-point", "The point is unknown", 404


class NotAcceptable(Refusal):
    """The client takes none of the formats."""

    kind, title, status = "not-acceptable", "There is no such format", 406


class UploadTooLarge(Refusal):
    """A file has too many bytes."""

    kind, title, status = "too-large", "The file is too large", 413


class UnsupportedMedia(Refusal):
    """A body is no audio, by the name or the type that it was given."""

    kind, title, status = "unsupported-media", "This is not taken as audio", 415


class UploadsFull(Refusal):
    """A file finds no room."""

    kind, title, status = "uploads-full", "No upload is taken now", 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": "60"}


class KafkaAway(Refusal):
    """Kafka does not take an event."""

    kind, title, status = "kafka-away", "Kafka does not answer", 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": str(_RETRY_AFTER_S)}


class AlreadyRunning(Refusal):
    """Only one at a time."""

    kind, title, status = "already-running", "Another one is running", 409


class RedriveStopped(Refusal):
    """The process ends while a redrive runs."""

    kind, title, status = "stopping", "The process of the API ends", 503


class NotJson(Refusal):
    """The body is of another media type, such as a form of a foreign page could send."""

    kind, title, status = "not-json", "The body is not JSON", 415


class NothingLive(Refusal):
    """No release is live yet."""

    kind, title, status = "nothing-live", "No release is live", 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": str(_RETRY_AFTER_S)}


_NOT_NOW: dict[type[Exception], tuple[str, str]] = {
    RedisAway: ("redis-away", "Redis does not answer"),
    ForeignValue: ("foreign-value", "Redis holds what tastewave did not write"),
    NotCaughtUp: ("not-caught-up", "The live release is still being read"),
    KafkaUnusable: ("kafka-away", "Kafka does not answer"),
    RedriveFailed: ("kafka-away", "Kafka does not answer"),
    CorrectionFailed: ("kafka-away", "Kafka does not answer"),
    RedisUnusable: ("redis-away", "Redis does not answer"),
}


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The answer to a request that ended in an error."""
    headers: dict[str, str] = {}
    if isinstance(error, Refusal):
        problem = Problem(type=_named(error.kind), title=error.title, status=error.status, detail=str(error))
        headers = error.headers
    elif kind := _NOT_NOW.get(type(error)):
        detail = "it is read again and again; try again" if isinstance(error, RedisAway) else str(error)
        problem = Problem(type=_named(kind[0]), title=kind[1], status=503, detail=detail)
        headers = {"Retry-After": str(_RETRY_AFTER_S)}
        log.warning("request.unanswered", path=request.scope["path_template"], error=str(error))
    elif isinstance(error, HTTPException) and error.status_code < 500:
        problem = Problem(type="about:blank", title=_title(error), status=error.status_code, detail=_detail(error))
        headers = dict(error.headers or {})
    else:
        log.error("request.failed", path=request.scope.get("path_template"), exc_info=error)
        problem = Problem(type="about:blank", title="Internal Server Error", status=500)
    body = msgspec.json.encode(problem)
    return Response(body, status_code=problem.status, media_type=PROBLEM, headers=headers)


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """The problems of a route, for the OpenAPI document."""
    return {
        status: ResponseSpec(Problem, media_type=PROBLEM, description=_STATUSES[status], generate_examples=False)
        for status in statuses
    }


_STATUSES = {
    400: "The request cannot be read.",
    401: "The bearer token is missing, or another one.",
    403: "A setting does not allow it.",
    404: "The live release does not know it, or it was forgotten; `type` says what is missing.",
    406: "None of the formats is acceptable.",
    409: "Another one is running: try again when it has ended.",
    413: "The body is too large.",
    415: "The body has another type, or the name of the file no suffix of audio.",
    416: "The range begins behind the end of the file.",
    503: "Redis or Kafka does not answer, no release is live, it is still being read, or there is no room: try again.",
}


def _named(kind: str) -> str:
    return f"urn:tastewave:problem:{kind}"


def _title(error: HTTPException) -> str:
    from http import HTTPStatus

    return HTTPStatus(error.status_code).phrase


def _detail(error: HTTPException) -> str:
    """What Litestar says, with the first of the parts that do not fit."""
    parts = error.extra if isinstance(error.extra, list) else []
    return "; ".join([error.detail, *(f"{part.get('key', 'body')}: {part.get('message')}" for part in parts[:1])])
