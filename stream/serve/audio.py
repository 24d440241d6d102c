"""GET /v1/tracks/{id}/audio: the file of a track, whole or by ranges, where TASTEWAVE_SERVE_AUDIO_ROOTS allows it."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from litestar import Request, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from models.errors import FetchError
from stream.audio.gates import open_inside
from stream.audio.intake import TransientError
from stream.audio.machine import MachineUnusable
from stream.reader.reader import AnswerReader
from stream.serve.answers import etag_of
from stream.serve.ids import PathId, decoded
from stream.serve.lookups import Guard, live, unknown
from stream.serve.problems import NoAudio, NoSuchRange, UnknownTrack, documented
from stream.serve.uploaded_audio import UploadedAudio

MOST_RANGE_BYTES = 2**20
"""Of one answer to a range, so that a player that pauses holds no connection; it asks for the next range."""
_READ_BYTES = 2**18
_RANGE = re.compile(rb"bytes=(\d{0,15})-(\d{0,15})")
MEDIA_TYPES = {
    ".aac": "audio/aac", ".aif": "audio/aiff", ".aiff": "audio/aiff", ".flac": "audio/flac", ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg", ".mp4": "audio/mp4", ".oga": "audio/ogg", ".ogg": "audio/ogg", ".opus": "audio/ogg",
    ".wav": "audio/wav", ".wave": "audio/wav", ".weba": "audio/webm", ".webm": "audio/webm",
}  # fmt: skip
"""Of the files that are served, by the ending of their names; no other file is."""


def audio_route(reader: AnswerReader, uploads: UploadedAudio | None, *, guard: Guard) -> Any:
    """The route; it finds nothing where there are no uploads to look in."""

    @get(
        "/v1/tracks/{track_id:str}/audio",
        responses={
            status: ResponseSpec(bytes, media_type="audio/*", description=told, generate_examples=False)
            for status, told in ((200, "The file."), (206, "A range of the file, of 1 MiB at most."))
        }
        | documented(400, 401, 404, 416, 503),
        guards=[guard],
        tags=["tracks"],
    )
    async def audio(request: Request[Any, Any, Any], track_id: PathId) -> ASGIApp:
        """The audio of a track, where its file lies in a folder that may be served."""
        id_, release = decoded(track_id), await live(reader)
        (values,) = await reader.tracks([id_], ("status", "event_id"), release=release)
        if values is None:
            raise unknown(UnknownTrack, id_, release)
        if uploads is None:
            raise NoAudio("set TASTEWAVE_SERVE_AUDIO_ROOTS to folders of audio that may be played")
        file, media_type = await _opened(uploads, id_, (values[1] or b"").decode())
        try:
            return _File(file, media_type, request)
        except NoSuchRange:
            file.close()
            raise

    return audio


def may_be_served(uploads: UploadedAudio | None, track_id: str, event_id: str) -> bool:
    """Whether the route would look for a file of this upload."""
    uri = uploads.uri(track_id, event_id) if uploads else None
    return uri is not None and _media_type(uri) is not None


def _media_type(uri: str) -> str | None:
    return MEDIA_TYPES.get(PurePosixPath(urlsplit(uri).path).suffix.lower())


async def _opened(uploads: UploadedAudio, track_id: str, event_id: str) -> tuple[IO[bytes], str]:
    """The file of an upload, and its media type. Raises NoAudio."""
    if not (uri := uploads.uri(track_id, event_id)) or not (media_type := _media_type(uri)):
        raise NoAudio(
            f"the upload of {track_id!r} is no audio file under TASTEWAVE_SERVE_AUDIO_ROOTS, or not among the newest"
        )
    try:
        return await asyncio.to_thread(open_inside, uri, roots=uploads.roots), media_type
    except (FetchError, TransientError, MachineUnusable):  # which name the file, and say how it was refused
        raise NoAudio(f"the file of {track_id!r} cannot be read now") from None


class _File:
    """An open file as an ASGI application that closes it. Raises NoSuchRange, and then does not."""

    def __init__(self, file: IO[bytes], media_type: str, request: Request[Any, Any, Any]) -> None:
        facts = os.fstat(file.fileno())
        tag = etag_of(b"%d %d" % (facts.st_size, facts.st_mtime_ns))
        given = dict(request.scope["headers"])
        asked = given.get(b"range") if given.get(b"if-range", tag) == tag else None
        self._file = file
        self._headers = [(b"content-type", media_type.encode()), (b"accept-ranges", b"bytes"), (b"etag", tag)]
        self._status, self._range = 200, range(facts.st_size)
        if (some := _range_of(asked, facts.st_size)) is not None:
            told = b"bytes %d-%d/%d" % (some.start, some.stop - 1, facts.st_size)
            self._status, self._range = 206, some
            self._headers.append((b"content-range", told))
        self._headers.append((b"content-length", b"%d" % len(self._range)))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - as ASGI has it
        with self._file as file:
            file.seek(self._range.start)
            await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
            left = len(self._range)
            while left and (some := await asyncio.to_thread(file.read, min(left, _READ_BYTES))):
                left -= len(some)
                await send({"type": "http.response.body", "body": some, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def _range_of(asked: bytes | None, size: int) -> range | None:
    """The bytes of a Range header; None for all, as where there are several ranges. Raises NoSuchRange."""
    match = _RANGE.fullmatch(asked.replace(b" ", b"")) if asked else None
    if match is None or not any(match.groups()):
        return None
    first, last = (int(number) if number else None for number in match.groups())
    if first is None:  # the last bytes of the file
        begin, stop = max(0, size - (last or 0)), size
    else:
        begin, stop = first, size if last is None else min(size, last + 1)
        if last is not None and last < first:
            return None
    if begin >= size:
        raise NoSuchRange(f"the file has {size} bytes; ask for a range that begins within it")
    return range(begin, min(stop, begin + MOST_RANGE_BYTES))
