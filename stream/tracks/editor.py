"""An editor's correction, made by a person: published, and written into the answers of all releases without waiting."""

from __future__ import annotations

import asyncio
import time

import redis.exceptions
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from models.contract import TRACKS_CORRECTED, TRACKS_TAGGED
from models.errors import TastewaveError
from models.events import TrackCorrected, TrackTagged, decode_event, encode_event
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of
from stream.settings import Settings
from stream.store.client import async_client, unusable
from stream.store.corrections import Corrections


class CorrectionFailed(TastewaveError):
    """A correction breaks the contract, or Kafka did not take it."""


def correct(settings: Settings, track_id: str, genre: str, *, by: str) -> list[str]:
    """Correct a track as of now.

    The event is published first. So where Redis is away afterwards, the tracks workers write the correction when it is
    back.

    Args:
        settings: how to reach Kafka and Redis.
        track_id: of the track; it need not have an answer yet.
        genre: that it has.
        by: who says so.

    Returns:
        The releases whose answers carry the editor's genre now.

    Raises:
        CorrectionFailed: the event breaks the contract, or Kafka did not take a record.
        KafkaUnusable: Kafka is away, or a topic is missing.
        RedisUnusable: Redis is away.
    """
    try:
        event = TrackCorrected(track_id=track_id, genre=genre, by=by, at=time.time_ns() // 1_000_000)
        decode_event(encode_event(event), TrackCorrected)  # making a struct checks no lengths
    except (TastewaveError, ValueError) as error:
        raise CorrectionFailed(f"the correction breaks the contract ({error}); see deploy/docs/contract.md") from error
    corrected, tagged = (settings.topics.named(topic) for topic in (TRACKS_CORRECTED, TRACKS_TAGGED))
    with kafka_client(KafkaConsumer, settings.kafka, allow_auto_create_topics=False) as consumer:
        for topic in (corrected, tagged):
            partitions_of(consumer, topic)
    with kafka_producer(settings) as producer:
        _send(producer, corrected, track_id, encode_event(event))
        return asyncio.run(_write(settings, event, producer, tagged))


async def _write(settings: Settings, event: TrackCorrected, producer: KafkaProducer, topic: str) -> list[str]:
    client = async_client(settings.redis)
    releases = set[str]()

    async def publish(release: str, track_id: str, answer: TrackTagged | None) -> None:
        value = encode_event(answer) if answer else None
        await asyncio.to_thread(_send, producer, topic, f"{release}:{track_id}", value)
        releases.add(release)

    try:
        await Corrections(client, key_prefix=settings.redis.key_prefix).correct(event, publish=publish)
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        raise unusable(settings.redis, error) from error
    finally:
        await client.aclose()
    return sorted(releases)


def _send(producer: KafkaProducer, topic: str, key: str, value: bytes | None) -> None:
    try:
        producer.send(topic, key=key.encode(), value=value).get(DELIVERY_TIMEOUT_S)
    except KafkaError as error:
        raise CorrectionFailed(f"Kafka did not take a record of {topic} ({error}); run this again") from error
