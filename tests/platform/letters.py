"""Dead letters as workers write them."""

from typing import Any

from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord

from models.contract import DEAD_LETTER, TRACKS_UPLOADED
from models.events import TrackUploaded, encode_event
from stream.broker.dead_letters import dead_letter
from stream.settings import Settings


def upload(track_id: str) -> bytes:
    return encode_event(
        TrackUploaded(event_id="e", track_id=track_id, uri="file:///a.mp3", uploaded_at=1_700_000_000_000)
    )


def put_letter(
    producer: KafkaProducer,
    settings: Settings,
    offset: int,
    *,
    key: bytes | None = None,
    value: bytes | None = b"",
    topic: str = TRACKS_UPLOADED,
    partition: int = 0,
    reason: str = "not_found",
    message: str = "m",
    at: int = 1_700_000_000_000,
    max_bytes: int = 100_000,
) -> None:
    """Write a letter as a worker does. Its event is the upload of a track of this number, unless a value is given."""
    key = f"t{offset}".encode() if key is None else key
    value = upload(f"t{offset}") if value == b"" else value
    source: Any = ConsumerRecord(
        settings.topics.named(topic), partition, None, offset, 0, 0, key, value, [], None, -1, -1, -1
    )
    key, value, headers = dead_letter(
        source, reason=reason, message=message, attempts=1, release="r", max_bytes=max_bytes, now_ms=at
    )
    send: Any = producer.send
    send(settings.topics.named(DEAD_LETTER), key=key, value=value, headers=headers).get(30)
