"""What the agents put on Kafka: answers, features and dead letters, each acknowledged by all in-sync replicas."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiokafka.structs import ConsumerRecord
from faust.types.transports import ProducerT

from models.contract import DEAD_LETTER, TRACKS_FEATURES, TRACKS_TAGGED
from models.errors import TastewaveError
from models.events import TrackFeatures, TrackTagged, encode_event
from stream.broker.dead_letters import dead_letter
from stream.settings import TopicSettings


class Publisher:
    """Sends through the app's producer and waits for the acknowledgement; raises aiokafka's KafkaError."""

    def __init__(self, producer: ProducerT, topics: TopicSettings, *, release: str) -> None:
        self._producer = producer
        self._topics = topics
        self._release = release

    async def tagged(self, answer: TrackTagged) -> None:
        """An answer, as Redis holds it."""
        await self._send(TRACKS_TAGGED, f"{answer.release}:{answer.track_id}".encode(), encode_event(answer))

    async def features(self, features: TrackFeatures) -> None:
        """The features of a track, for genre heads to come."""
        await self._send(TRACKS_FEATURES, features.track_id.encode(), msgspec.msgpack.encode(features))

    async def dead_letter(self, record: ConsumerRecord, error: TastewaveError, *, attempts: int = 1) -> None:
        """A record that could not be processed, with its reason."""
        key, value, headers = dead_letter(
            record,
            reason=error.reason,
            message=str(error),
            attempts=attempts,
            release=self._release,
            max_bytes=self._topics.max_bytes,
        )
        if key is None and value is None:
            value = b""  # aiokafka sends no record without both
        await self._send(DEAD_LETTER, key, value, headers)

    async def _send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        await self._producer.send_and_wait(
            self._topics.named(topic), key, value, partition=None, timestamp=None, headers=list(headers)
        )
