"""Where the audio of uploaded tracks lies. Answers do not tell it, so the newest uploads are read from Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import aiokafka
import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from models.contract import TRACKS_UPLOADED
from models.errors import EventError, FetchError
from models.events import TrackUploaded, decode_event
from stream.audio.gates import named_root
from stream.broker.consumer_header_names import read_all_header_names
from stream.broker.tokens import aiokafka_arguments
from stream.serve.reading import end
from stream.settings import Settings

log = structlog.get_logger(__name__)

MOST_UPLOADS = 50_000
"""How many of the newest uploads are kept."""
_MOST_URI_LETTERS = 2_048
_RECORDS_AT_ONCE = 500
_POLL_MS, _AGAIN_AFTER_S, _STOP_TIMEOUT_S = 500, 1.0, 5.0


class UploadedAudio:
    """Follows the uploads, and keeps the addresses of files under the folders that may be served.

    Args:
        settings: how to reach Kafka, the topics, and TASTEWAVE_SERVE_AUDIO_ROOTS.

    Attributes:
        roots: the folders, links followed.
    """

    def __init__(self, settings: Settings) -> None:
        self.roots = [Path(root).resolve() for root in settings.serve.audio_roots]
        self._named: Sequence[str] = [*settings.serve.audio_roots, *map(str, self.roots)]
        self._settings = settings
        self._uris: dict[tuple[str, str], str] = {}
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._following:
            await end(self._following)

    def uri(self, track_id: str, event_id: str) -> str | None:
        """The address of the file of an upload; None where it lies elsewhere, or is not among the newest."""
        return self._uris.get((track_id, event_id))

    def take(self, value: bytes | None) -> None:
        """Take the value of a record of tastewave.tracks.uploaded."""
        try:
            upload = decode_event(value, TrackUploaded)
            if len(upload.uri) > _MOST_URI_LETTERS or named_root(upload.uri, roots=self._named) == "file://":
                return
        except (EventError, FetchError):
            return
        place = upload.track_id, upload.event_id
        self._uris.pop(place, None)
        self._uris[place] = upload.uri
        if len(self._uris) > MOST_UPLOADS:
            del self._uris[next(iter(self._uris))]

    async def _follow(self) -> None:
        """Follow the uploads until cancelled."""
        while True:
            try:
                await self._read()
            except KafkaError as error:
                log.warning("audio.uploads_wait", error=self._settings.redacted(str(error)))
                await asyncio.sleep(_AGAIN_AFTER_S)

    async def _read(self) -> None:
        read_all_header_names()
        settings = self._settings
        consumer = aiokafka.AIOKafkaConsumer(
            settings.topics.named(TRACKS_UPLOADED),
            **aiokafka_arguments(settings.kafka),
            client_id="tastewave-serve",
            client_rack=settings.kafka.client_rack,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=max(2**20, settings.topics.max_bytes),
        )
        try:
            await consumer.start()
            await _go_to_the_newest(consumer)
            while True:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_AT_ONCE)
                for records in fetched.values():
                    for record in records:
                        self.take(record.value)
                await asyncio.sleep(0)  # or a buffer that is never empty would leave nothing to other tasks
        finally:
            # As a task of its own: soon after the start, stopping raises CancelledError, and nobody has cancelled.
            await asyncio.wait([asyncio.create_task(consumer.stop())], timeout=_STOP_TIMEOUT_S)


async def _go_to_the_newest(consumer: aiokafka.AIOKafkaConsumer) -> None:
    """Begin with the records that may be among the newest uploads."""
    places: list[TopicPartition] = list(consumer.assignment())
    begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
    for place in places:
        consumer.seek(place, max(begins[place], ends[place] - MOST_UPLOADS))
