"""What the publisher sends, on a real Kafka."""

from collections.abc import AsyncIterator

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from models.contract import TRACKS_TAGGED
from stream.broker.app import batch_app
from stream.broker.publish import Publisher
from stream.commands.topics import create_topics
from stream.settings import Settings, load_settings

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    settings = load_settings(
        kafka_brokers=environment["TASTEWAVE_KAFKA_BROKERS"],
        topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"],
        topic_partitions=2,
        topic_max_bytes=100_000,
    )
    create_topics(settings)
    return settings


@pytest.fixture
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    app = batch_app(settings, role="tracks", release="r", records_per_fetch=32, turns=1, on_away=lambda _: None)
    await app.producer.start()
    yield Publisher(app.producer, settings.topics, release="r")
    await app.producer.stop()


def read(settings: Settings) -> dict[bytes, bytes]:
    topic = settings.topics.named(TRACKS_TAGGED)
    consumer = KafkaConsumer(**settings.kafka.client_arguments(), enable_auto_commit=False)
    places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends, values = consumer.end_offsets(places), {}
    while any(consumer.position(place) < end for place, end in ends.items()):
        for records in consumer.poll(timeout_ms=500).values():
            values |= {record.key: record.value for record in records}
    consumer.close()
    return values


async def test_many_records_are_acknowledged_together(settings: Settings, publisher: Publisher) -> None:
    records = {b"key-%d" % number: b"value-%d" % number for number in range(3000)}
    await publisher.send_many(TRACKS_TAGGED, records.items())
    assert read(settings) == records


async def test_a_record_that_is_refused_is_an_error_and_the_others_are_sent(
    settings: Settings, publisher: Publisher
) -> None:
    records = {b"key-%d" % number: b"value" for number in range(10)}
    with pytest.raises(MessageSizeTooLargeError):
        await publisher.send_many(TRACKS_TAGGED, [(b"large", b"x" * 200_000), *records.items()])
    assert read(settings) == records
