"""Ids in paths. They are opaque UTF-8, and may hold slashes: a path is routed before it is decoded."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from litestar.params import PathParameter

from models.events import MAX_ID_BYTES
from stream.serve.problems import BadRequest

PathId = Annotated[
    str,
    PathParameter(
        description=f"percent-encoded UTF-8, 1 to {MAX_ID_BYTES} bytes; a slash is %2F",
        schema_extra={"minLength": 1, "maxLength": MAX_ID_BYTES},
    ),
]
_WORDS = {f"/v1/{kind}/batch": f"/v1/{kind}/%62atch" for kind in ("tracks", "users")}


def routed(method: str, raw_path: bytes) -> str:
    """The path by which a request is routed: as it came, still encoded.

    A track may be called batch. Only a POST asks for the batch.
    """
    path = raw_path.decode("latin-1")
    return _WORDS.get(path, path) if method == "GET" else path


def decoded(segment: str) -> str:
    """The id (or the genre) in a segment of a path. Raises BadRequest."""
    if "%" not in segment and segment.isascii() and len(segment) <= MAX_ID_BYTES:
        return segment
    raw = unquote_to_bytes(segment)
    if len(raw) > MAX_ID_BYTES:
        raise BadRequest(f"an id has 1 to {MAX_ID_BYTES} bytes of UTF-8, and this one has {len(raw)}")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequest("an id is UTF-8, percent-encoded, and this one is not") from None
