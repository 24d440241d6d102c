"""The HTTP API as one ASGI application: its routes, their OpenAPI document, and what every answer carries."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    RequestBody,
    Schema,
    SecurityScheme,
)

from models.contract import CONTRACT
from models.events import MAX_ID_BYTES
from stream import metrics, traces
from stream.reader.reader import IDS_AT_ONCE, AnswerReader
from stream.serve.answers import Format
from stream.serve.audio import audio_route
from stream.serve.dead_letters import REDRIVE_BODY, dead_letter_routes
from stream.serve.documentation import documentation_route
from stream.serve.explanations import explanation_routes
from stream.serve.feed import Feed
from stream.serve.hosts import is_loopback, only_loopback
from stream.serve.ids import routed
from stream.serve.letters import Letters, Redrives
from stream.serve.lookups import bearer, lookup_routes
from stream.serve.map import map_routes
from stream.serve.nearest import nearest_routes
from stream.serve.now import Now, now_routes
from stream.serve.operations import operation_routes
from stream.serve.own_release import OwnRelease
from stream.serve.page_files import page_routes
from stream.serve.problems import respond
from stream.serve.recent_listens import recent_listens_route
from stream.serve.review import CORRECTION_BODY, review_routes
from stream.serve.runbook import runbook_route
from stream.serve.streams import event_routes
from stream.serve.uploaded_audio import UploadedAudio
from stream.serve.uploads import MEDIA_TYPE, UPLOADS, Uploads, upload_routes
from stream.settings import ServeSettings, Settings

SCHEMA_PATH = "/v1/openapi.json"
_MOST_BODY_BYTES = 1_048_576  # 500 ids of 256 bytes, each byte of which JSON may write as six
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NOT_KEPT = (b"cache-control", b"no-store")
_IDS = RequestBody(
    content={
        "application/json": OpenAPIMediaType(
            schema=Schema(
                type=OpenAPIType.OBJECT,
                required=["ids"],
                properties={
                    "ids": Schema(
                        type=OpenAPIType.ARRAY,
                        description=f"1 to {IDS_AT_ONCE} ids",
                        items=Schema(type=OpenAPIType.STRING, min_length=1, max_length=MAX_ID_BYTES),
                        min_items=1,
                        max_items=IDS_AT_ONCE,
                    )
                },
                additional_properties=False,
            )
        )
    },
    required=True,
)
_FILE = RequestBody(
    content={MEDIA_TYPE: OpenAPIMediaType(schema=Schema(description="the bytes of the file"))}, required=True
)
_BODIES = {
    "/v1/tracks/batch": _IDS,
    "/v1/users/batch": _IDS,
    "/v1/map/tracks/batch": _IDS,
    "/v1/dead-letters/redrive": REDRIVE_BODY,
    "/v1/corrections": CORRECTION_BODY,
    UPLOADS: _FILE,
}
_RANKED = Schema(  # without prefixItems, which many tools for OpenAPI do not know
    type=OpenAPIType.ARRAY,
    description="names with their probabilities, best first",
    items=Schema(
        type=OpenAPIType.ARRAY,
        items=Schema(one_of=[Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.NUMBER)]),
        min_items=2,
        max_items=2,
    ),
)
_FORMATS = {
    Format.MSGPACK.value: "The same as msgpack; an embedding is binary: float32, little-endian.",
    Format.FLOATS.value: "The embedding alone: float32, little-endian. Of many, a row for each id, in their order; "
    "of NaN where it is unknown or has none.",
}

_OF_TAGGRAM = {
    Format.MSGPACK.value: "The same as msgpack.",
    Format.FLOATS.value: "As Redis holds it: a header of 8 bytes, then a byte for each patch and tag.",
}

Send = Callable[[Any], Awaitable[None]]


class Site:
    """The application. Calls of unknown routes, of all kinds, are answered too.

    Args:
        settings: of the API, and how to reach Kafka and Redis for what changes something.
        reader: reads Redis.
        feed: the live release in memory; it is entered before the first request, and left after the last.
        uploads: takes files; None where none are taken.
    """

    def __init__(self, settings: Settings, *, reader: AnswerReader, feed: Feed, uploads: Uploads | None = None) -> None:
        serve, own_release, redrives = settings.serve, OwnRelease(settings.worker), Redrives(settings)
        audio = UploadedAudio(settings) if serve.audio_roots else None
        now = Now(reader, feed)
        guard = bearer(serve.token.get_secret_value() if serve.token else None)

        @contextlib.asynccontextmanager
        async def followed(_: Litestar) -> AsyncIterator[None]:
            async with feed, now, audio or contextlib.nullcontext():
                yield
                await redrives.stop()

        self._timed: dict[tuple[str, str, int], Any] = {}
        self.litestar = Litestar(
            [
                *lookup_routes(reader, guard=guard),
                *explanation_routes(reader, own_release, audio),
                audio_route(reader, audio, guard=guard),
                recent_listens_route(reader, own_release, guard=guard),
                *nearest_routes(reader, feed, guard=guard),
                *map_routes(reader, feed, guard=guard),
                *operation_routes(reader, feed),
                *now_routes(now),
                *event_routes(feed, guard=guard),
                *upload_routes(uploads, guard=guard),
                *dead_letter_routes(Letters(settings), redrives, settings=settings, guard=guard),
                *review_routes(reader, feed, settings=settings, guard=guard),
                runbook_route(),
                documentation_route(schema_path=SCHEMA_PATH),
                *page_routes(),
            ],
            middleware=[only_loopback] if is_loopback(serve.host) else [],
            lifespan=[followed],
            exception_handlers={HTTPException: respond, Exception: respond},
            request_max_body_size=_MOST_BODY_BYTES,
            logging_config=None,
            cors_config=_cors(serve),
            openapi_config=OpenAPIConfig(
                title="tastewave",
                version=str(CONTRACT),
                description="Genres, tags and places in taste space of the live release. Ids are opaque UTF-8 of 1 to "
                "256 bytes, times are milliseconds since 1970, UTC.",
                path="/v1",
                use_handler_docstrings=True,
                render_plugins=[JsonRenderPlugin(path="/openapi.json")],
                components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
            ),
        )
        _complete_document(self.litestar, with_token=serve.token is not None)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Answer one request, or follow the life of the server."""
        if scope["type"] != "http":
            await self.litestar(scope, receive, send)
            return
        scope["path"] = routed(scope["method"], scope.get("raw_path") or scope["path"].encode())
        started, status = time.perf_counter(), 500

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = span["status"] = message["status"]
                message["headers"] = _dressed(message["headers"])
            await send(message)

        try:
            with traces.answering(scope) as span:
                await self.litestar(scope, receive, answer)
        finally:
            what = (scope["method"], scope.get("path_template") or "none", status)
            timed = self._timed.get(what) or self._timed.setdefault(what, _timed(*what))
            timed.observe(time.perf_counter() - started)


def _timed(method: str, route: str, status: int) -> Any:
    method = method if method in ("GET", "POST", "HEAD", "OPTIONS") else "other"
    return metrics.HTTP_REQUEST_SECONDS.labels(method, route, str(status))


def _dressed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in headers}
    dressed = [*headers, *_HEADERS]
    if b"content-security-policy" not in names:
        dressed.append(_POLICY)
    if b"cache-control" not in names:
        dressed.append(_NOT_KEPT)
    return dressed


def _cors(settings: ServeSettings) -> CORSConfig | None:
    if not settings.allowed_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.allowed_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
        expose_headers=["ETag", "Tastewave-Release"],
    )


def _complete_document(litestar: Litestar, *, with_token: bool) -> None:
    """Tell what Litestar does not know: other formats of an answer, the body of a batch, who needs the token."""
    for schema in litestar.openapi_schema.components.schemas.values():
        for name in ("genres", "tags"):
            if schema.properties and name in schema.properties:
                schema.properties[name] = _RANKED
    for path, item in (litestar.openapi_schema.paths or {}).items():
        for operation in (item.get, item.post):
            if operation is None:
                continue
            responses = operation.responses or {}
            if "406" in responses and isinstance(answer := responses["200"], OpenAPIResponse) and answer.content:
                for media_type, told in (_OF_TAGGRAM if path.endswith("/taggram") else _FORMATS).items():
                    answer.content[media_type] = OpenAPIMediaType(schema=Schema(description=told))
            if operation is item.post:
                operation.request_body = _BODIES[path]
            if with_token and "401" in responses:
                operation.security = [{"bearer": []}, {}] if path == "/v1/events" else [{"bearer": []}]
