"""Uploads over HTTP: a file is stored, and an event asks the workers to hear it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import structlog
from litestar import Request, get, post
from litestar.exceptions import InternalServerException
from litestar.params import QueryParameter

from models.audio.windows import SUFFIXES
from models.contract import TRACKS_UPLOADED
from models.errors import SettingsError
from models.events import TrackUploaded, encode_event
from stream import traces
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_producer
from stream.serve.connection import UPLOADS
from stream.serve.lookups import Guard, documents
from stream.serve.problems import BadRequest, KafkaAway, UnsupportedMedia, UploadsFull, UploadTooLarge, documented
from stream.serve.upload_folder import NoRoom, UploadFolder
from stream.settings import Settings

log = structlog.get_logger(__name__)


AT_ONCE = 4
"""Uploads that are taken at a time."""
_BLOCK_BYTES = 1 << 20
_ID_DIGITS = 16
MEDIA_TYPE = "application/octet-stream"
Name = Annotated[
    str,
    QueryParameter(name="name", min_length=1, max_length=255, description="of the file, such as song.mp3: its suffix "
                   "says that it is audio, the rest becomes the title"),
]  # fmt: skip


class UploadsTaken(msgspec.Struct, frozen=True, kw_only=True):
    """Whether uploads are taken, and which.

    Attributes:
        taken: whether TASTEWAVE_SERVE_UPLOADS allows them.
        max_bytes: the most that a file may have.
        suffixes: how its name may end.
    """

    taken: bool
    max_bytes: int = 0
    suffixes: list[str] = []


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that the workers were told of.

    The answer stands under the track_id when its event_time is uploaded_at or later. The same file has the same
    track_id each time.
    """

    track_id: str
    event_id: str
    uploaded_at: int


Publish = Callable[[TrackUploaded], None]


class Uploads:
    """Takes files, and publishes an event for each.

    Args:
        folder: where they are kept.
        max_bytes: the most that a file may have.
        publish: returns when Kafka has an event. It blocks.
    """

    def __init__(self, folder: UploadFolder, *, max_bytes: int, publish: Publish) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._publish = publish
        self._coming = 0

    async def take(self, body: AsyncIterator[bytes], *, name: str, size_bytes: int | None) -> Uploaded:
        """Take a file.

        Args:
            body: its blocks.
            name: that somebody gave it.
            size_bytes: as announced.

        Raises:
            Refusal: it is not taken. Nothing of it is kept.
        """
        if size_bytes is not None and size_bytes > self.max_bytes:
            raise self._too_large()
        if self._coming == AT_ONCE:
            raise UploadsFull(f"{AT_ONCE} uploads are coming already; try again")
        self._coming += 1
        try:
            return await self._take(body, name=name, size_bytes=size_bytes or self.max_bytes)
        except NoRoom as error:
            log.warning("upload.refused", error=str(error))
            raise UploadsFull(str(error)) from error
        finally:
            self._coming -= 1

    async def _take(self, body: AsyncIterator[bytes], *, name: str, size_bytes: int) -> Uploaded:
        suffix, title = _named(name)
        with await asyncio.to_thread(self._folder.begin, suffix, size_bytes=size_bytes) as coming:
            async for block in _in_blocks(body):
                if coming.size_bytes + len(block) > self.max_bytes:
                    raise self._too_large()
                await asyncio.to_thread(coming.write, block)
            if not coming.size_bytes:
                raise BadRequest("the body is empty; send the bytes of the file")
            path = await asyncio.to_thread(coming.finish)
        event = TrackUploaded(
            event_id=uuid4().hex,
            track_id=coming.content_hash[:_ID_DIGITS],
            uri=path.as_uri(),
            uploaded_at=time.time_ns() // 1_000_000,
            title=title,
        )
        try:
            await asyncio.to_thread(self._publish, event)
        except Exception as error:
            path.unlink(missing_ok=True)
            log.warning("upload.unpublished", error=str(error))
            raise KafkaAway("Kafka did not take the event, and the file is gone again; try again") from error
        log.info("upload.taken", track_id=event.track_id, event_id=event.event_id, bytes=coming.size_bytes)
        return Uploaded(track_id=event.track_id, event_id=event.event_id, uploaded_at=event.uploaded_at)

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(f"a file may have {self.max_bytes} bytes (TASTEWAVE_FETCH_MAX_BYTES); send a smaller one")


def uploads_of(settings: Settings) -> Uploads | None:
    """What takes uploads where the settings allow it. Raises SettingsError."""
    folder = settings.serve.uploads
    if folder is None:
        return None
    roots = [Path(root).resolve() for root in settings.fetch.file_roots]
    if roots and not any(map(folder.resolve().is_relative_to, roots)):
        raise SettingsError(
            f"TASTEWAVE_SERVE_UPLOADS: workers may not read {folder}; name a folder in TASTEWAVE_FILE_ROOTS, or add it"
        )
    topic = settings.topics.named(TRACKS_UPLOADED)

    def publish(event: TrackUploaded) -> None:
        with kafka_producer(settings) as producer, traces.sending(topic) as headers:
            sent = producer.send(
                topic,
                key=event.track_id.encode(),
                value=encode_event(event),
                headers=[(name, value or b"") for name, value in headers],
            )
            sent.get(DELIVERY_TIMEOUT_S)

    return Uploads(UploadFolder(folder), max_bytes=settings.fetch.max_bytes, publish=publish)


def upload_routes(uploads: Uploads | None, *, guard: Guard) -> list[Any]:
    """The routes; the guard stands before the one that takes files, which is there only where the settings allow it."""

    @get(UPLOADS, responses=documents(UploadsTaken, "Whether and which."), tags=["uploads"])
    async def taken() -> UploadsTaken:
        """Whether files are taken here, and which."""
        if uploads is None:
            return UploadsTaken(taken=False)
        return UploadsTaken(taken=True, max_bytes=uploads.max_bytes, suffixes=sorted(SUFFIXES))

    if uploads is None:
        return [taken]

    @post(
        UPLOADS,
        status_code=202,
        request_max_body_size=None,  # `take` counts, with another limit
        responses={202: documents(Uploaded, "Kafka has the event; the answer follows.")[200]}
        | documented(400, 401, 413, 415, 503),
        guards=[guard],
        tags=["uploads"],
    )
    async def upload(request: Request[Any, Any, Any], name: Name) -> Uploaded:
        """Store a file (the body as it is, application/octet-stream), and ask the workers to hear it."""
        if request.content_type[0] != MEDIA_TYPE:
            raise UnsupportedMedia(f"send the bytes of the file with Content-Type: {MEDIA_TYPE}")
        return await uploads.take(request.stream(), name=name, size_bytes=request.content_length)

    return [taken, upload]


def _named(name: str) -> tuple[str, str | None]:
    """The suffix and the title that the name of a file gives. Raises UnsupportedMedia."""
    file = PureWindowsPath(name)  # which knows / and \\
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise UnsupportedMedia(f"the name ends with no suffix of audio; known are {', '.join(sorted(SUFFIXES))}")
    return suffix, "".join(filter(str.isprintable, file.stem)).strip() or None


async def _in_blocks(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """A body in blocks that are worth a write. Raises BadRequest where it ends too early."""
    held = bytearray()
    try:
        async for part in body:
            held += part
            if len(held) >= _BLOCK_BYTES:
                yield bytes(held)
                held.clear()
    except InternalServerException:  # as Litestar says that the client has gone
        raise BadRequest("the body ended before its end") from None
    if held:
        yield bytes(held)
