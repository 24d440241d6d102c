"""Compressed topics, transactions and odd header names: what workers, operator commands and dumps read."""

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch

from offline.interactions.dump_kafka import Cluster, KafkaArguments, Offsets, PartitionReader
from stream.broker.app import batch_app
from stream.broker.operator import kafka_client, partitions_of, records_between
from stream.settings import Settings, load_settings
from tests.integration.test_batches import running, until

pytestmark = pytest.mark.servers
VALUES = [b"%d " % number * 200 for number in range(30)]


class Seen:
    """A RecordHandler that keeps what it got."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.headers: list[list[tuple[str, bytes]]] = []

    def order(self, record) -> None:
        return None

    def is_away(self, error: BaseException) -> bool:
        return False

    def is_away_for_some(self, error: BaseException) -> bool:
        return False

    async def give_up(self, record, error: Exception, tries: int) -> None:
        raise AssertionError(error)

    async def handle(self, record) -> None:
        self.values.append(record.value)
        self.headers.append(list(record.headers))


async def read_by_worker(
    settings: Settings, topic: str, count: int, *, headers: list[list[tuple[str, bytes]]] | None = None
) -> list[bytes]:
    seen = Seen()
    app = batch_app(settings, role="tracks", release="test", records_per_fetch=32, turns=4, on_away=print)
    app.consume(topic, seen, in_hand=8)
    async with running(app):
        await until(lambda: len(seen.values) >= count)
    if headers is not None:
        headers += seen.headers
    return seen.values


def read_by_operator(settings: Settings, topic: str) -> list[bytes]:
    with kafka_client(KafkaConsumer, settings.kafka, enable_auto_commit=False) as consumer:
        places = partitions_of(consumer, topic)
        ends = consumer.end_offsets(places)
        return [record.value for record in records_between(consumer, dict.fromkeys(places, 0), ends)]


def read_by_dump(settings: Settings, topic: str) -> list[bytes]:
    cluster = Cluster(",".join(settings.kafka.brokers), KafkaArguments())
    (place,), _ = cluster.find_topic(topic, partitions=())
    values: list[bytes] = []
    with cluster.consumer() as consumer:
        end, at = Offsets(consumer, [place]).ends[place], 0
        reader = PartitionReader(consumer, place, 0)
        while at < end:
            records, at = reader.read(1000)
            values += [record.value for record in records]
    return values


@pytest.mark.parametrize("chosen_by", ["producer", "topic"])
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_compressed_topic_is_read_by_worker_operator_commands_and_dump(
    environment: dict[str, str], codec: str, chosen_by: str
) -> None:
    brokers = environment["TASTEWAVE_KAFKA_BROKERS"]
    settings = load_settings(kafka_brokers=brokers, topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"])
    topic = settings.topics.named("records")
    configs = {"compression.type": codec} if chosen_by == "topic" else {}
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1, "configs": configs}})
    admin.close()
    producer = KafkaProducer(
        bootstrap_servers=brokers, linger_ms=1000, compression_type=codec if chosen_by == "producer" else None
    )
    for value in VALUES:
        producer.send(topic, value=value)
    producer.flush()
    producer.close()
    assert await read_by_worker(settings, topic, len(VALUES)) == VALUES
    assert read_by_operator(settings, topic) == VALUES
    assert read_by_dump(settings, topic) == VALUES


def test_the_lock_of_the_worker_has_a_decoder_for_every_codec() -> None:
    lock = (Path(__file__).parents[2] / "deploy/locks/worker.txt").read_text()
    locked = {line.partition("==")[0] for line in lock.splitlines()}
    assert {"cramjam", "lz4", "python-snappy", "zstandard"} <= locked


async def test_what_a_transaction_aborts_is_read_by_nobody(environment: dict[str, str]) -> None:
    brokers = environment["TASTEWAVE_KAFKA_BROKERS"]
    settings = load_settings(kafka_brokers=brokers, topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"])
    topic = settings.topics.named("records")
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
    admin.close()
    async with AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=topic) as producer:
        for value in (b"one", b"aborted", b"two", b"aborted"):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, value)
            await (producer.abort_transaction if value == b"aborted" else producer.commit_transaction)()
    assert await read_by_worker(settings, topic, 2) == [b"one", b"two"]
    assert read_by_operator(settings, topic) == [b"one", b"two"]
    assert read_by_dump(settings, topic) == [b"one", b"two"]


class Latin1(str):
    """A name of a header that kafka-python sends as it is, not in UTF-8."""

    __slots__ = ()

    def encode(self, *_: object, **__: object) -> bytes:
        return super().encode("latin-1")


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_a_header_name_that_is_not_utf_8_stops_nobody(
    environment: dict[str, str], codec: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers = environment["TASTEWAVE_KAFKA_BROKERS"]
    settings = load_settings(kafka_brokers=brokers, topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"])
    topic = settings.topics.named("records")
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
    admin.close()
    odd = [("source", b"a"), (Latin1("caf\xe9"), b"\xe9"), (Latin1(""), b"b")]
    producer = KafkaProducer(bootstrap_servers=brokers, linger_ms=1000, compression_type=codec)
    for number, value in enumerate(VALUES):  # one batch
        producer.send(topic, value=value, headers=odd if number == 7 else [("caf\xe9", b"")])
    producer.flush()
    producer.close()
    headers: list[list[tuple[str, bytes]]] = []
    assert await read_by_worker(settings, topic, len(VALUES), headers=headers) == VALUES
    assert headers.pop(7) == [("source", b"a"), ("caf\\xe9", b"\xe9"), ("", b"b")]
    assert headers == [[("caf\xe9", b"")]] * (len(VALUES) - 1)
    for read in (read_by_operator, read_by_dump):
        monkeypatch.setattr(memory_records, "DefaultRecordBatch", DefaultRecordBatch)  # as kafka-python has it
        assert read(settings, topic) == VALUES
