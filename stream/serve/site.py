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
from stream.serve.documentation import documentation_route
from stream.serve.feed import Feed
from stream.serve.ids import routed
from stream.serve.lookups import bearer, lookup_routes
from stream.serve.nearest import nearest_routes
from stream.serve.operations import operation_routes
from stream.serve.problems import respond
from stream.serve.streams import event_routes
from stream.settings import ServeSettings

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

Send = Callable[[Any], Awaitable[None]]


class Site:
    """The application. Calls of unknown routes, of all kinds, are answered too.

    Args:
        settings: of the API.
        reader: reads Redis.
        feed: the live release in memory; it is entered before the first request, and left after the last.
    """

    def __init__(self, settings: ServeSettings, *, reader: AnswerReader, feed: Feed) -> None:
        guard = bearer(settings.token.get_secret_value() if settings.token else None)

        @contextlib.asynccontextmanager
        async def following(_: Litestar) -> AsyncIterator[None]:
            async with feed:
                yield

        self._timed: dict[tuple[str, str, int], Any] = {}
        self.litestar = Litestar(
            [
                *lookup_routes(reader, guard=guard),
                *nearest_routes(reader, feed, guard=guard),
                *operation_routes(reader, feed),
                *event_routes(feed, guard=guard),
                documentation_route(schema_path=SCHEMA_PATH),
            ],
            lifespan=[following],
            exception_handlers={HTTPException: respond, Exception: respond},
            request_max_body_size=_MOST_BODY_BYTES,
            logging_config=None,
            cors_config=_cors(settings),
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
        _complete_document(self.litestar, with_token=settings.token is not None)

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
                for media_type, told in _FORMATS.items():
                    answer.content[media_type] = OpenAPIMediaType(schema=Schema(description=told))
            if operation is item.post:
                operation.request_body = _IDS
            if with_token and "401" in responses:
                operation.security = [{"bearer": []}, {}] if path == "/v1/events" else [{"bearer": []}]
