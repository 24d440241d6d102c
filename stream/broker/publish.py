"""What the agents put on Kafka: answers, features and dead letters, each acknowledged by all in-sync replicas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import aiokafka.errors
import msgspec
from aiokafka.structs import ConsumerRecord
from faust.exceptions import ProducerSendError
from faust.types.transports import ProducerT

from models.contract import DEAD_LETTER, TRACKS_FEATURES, TRACKS_TAGGED
from models.errors import TastewaveError
from models.events import TrackFeatures, TrackTagged, encode_event
from stream import traces
from stream.broker.dead_letters import dead_letter
from stream.broker.producer import BatchProducer
from stream.settings import TopicSettings

_OF_THE_RECORD = (
    aiokafka.errors.MessageSizeTooLargeError,
    aiokafka.errors.RecordTooLargeError,
    aiokafka.errors.RecordListTooLargeError,
)
_OF_THIS_PROGRAM = (aiokafka.errors.IllegalStateError, aiokafka.errors.IllegalArgumentError)
_ADVICE: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (
        (aiokafka.errors.TopicAuthorizationFailedError, aiokafka.errors.GroupAuthorizationFailedError,
         aiokafka.errors.ClusterAuthorizationFailedError, aiokafka.errors.TransactionalIdAuthorizationFailed),
        "grant its user the rights of deploy/docs/production.md",
    ),
    (
        (aiokafka.errors.AuthenticationFailedError, aiokafka.errors.SaslAuthenticationFailed),
        "correct TASTEWAVE_KAFKA_USERNAME and TASTEWAVE_KAFKA_PASSWORD",
    ),
    ((aiokafka.errors.UnknownTopicOrPartitionError,), "run `tastewave topics create`"),
    (
        (aiokafka.errors.KafkaConnectionError,),
        "start it, or correct TASTEWAVE_KAFKA_BROKERS, TASTEWAVE_KAFKA_SECURITY or the certificates",
    ),
)  # fmt: skip


def is_kafka_away(error: BaseException) -> bool:
    """Whether a record that met this error should wait and be tried again.

    Whatever Kafka answers is no fault of the record, unless what is sent for it is too large.
    """
    error = _cause(error)
    return isinstance(error, aiokafka.errors.KafkaError) and not isinstance(error, _OF_THE_RECORD + _OF_THIS_PROGRAM)


def kafka_advice(error: BaseException) -> str:
    """What to do about an error of Kafka; empty where its text says enough."""
    return next((advice for kinds, advice in _ADVICE if isinstance(_cause(error), kinds)), "")


def _cause(error: BaseException) -> BaseException:
    """What aiokafka raised, also where Faust has wrapped it."""
    return error.__cause__ if isinstance(error, ProducerSendError) and error.__cause__ else error


class Publisher:
    """Sends through the app's producer and waits for the acknowledgement; raises aiokafka's KafkaError.

        publisher = Publisher(app.producer, settings.topics, release=release_id)
        await publisher.tagged(answer)
        await publisher.send_many(USERS_EMBEDDED, [(key, value), ...])

    Args:
        producer: of the Faust app.
        topics: their prefix and the largest message.
        release: release_id that dead letters carry.
    """

    def __init__(self, producer: ProducerT, topics: TopicSettings, *, release: str) -> None:
        self._producer = cast(BatchProducer, producer)
        self._topics = topics
        self._release = release

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        """Send a record to a topic of the contract; returns when Kafka has acknowledged it."""
        given: Any = list(headers)  # Faust's types know no header without a value, and Kafka does
        await self._producer.send_and_wait(
            self._topics.named(topic), key, value, partition=None, timestamp=None, headers=given
        )

    async def send_many(self, topic: str, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Send records, each (key, value), to a topic of the contract; returns when Kafka has acknowledged all of them.

        They travel in batches. Where some are refused the others are sent nevertheless, and the first error is raised.
        """
        await self._producer.send_many(self._topics.named(topic), records)

    async def tagged(self, answer: TrackTagged) -> None:
        """An answer, as Redis holds it."""
        key = f"{answer.release}:{answer.track_id}".encode()
        with traces.sending(self._topics.named(TRACKS_TAGGED)) as headers:
            await self.send(TRACKS_TAGGED, key, encode_event(answer), headers)

    async def features(self, features: TrackFeatures) -> None:
        """The features of a track, for genre heads to come."""
        await self.send(TRACKS_FEATURES, features.track_id.encode(), msgspec.msgpack.encode(features))

    async def take_back(self, track_id: str, *, features: bool) -> None:
        """Have the output topic, and where asked the features topic, drop what it holds of a track."""
        await self.send(TRACKS_TAGGED, f"{self._release}:{track_id}".encode(), None)
        if features:
            await self.send(TRACKS_FEATURES, track_id.encode(), None)

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
        await self.send(DEAD_LETTER, key, value, headers)
