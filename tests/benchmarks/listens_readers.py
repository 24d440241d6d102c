"""Reading the topic of listens, and nothing else: says a line of JSON, listens/s and us of CPU. Run in build/quix.

python listens_readers.py confluent-kafka|aiokafka|quix BROKERS TOPIC COUNT    # reads so many, and does not commit

Rates begin with the first records.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any
from uuid import uuid4

RECORDS = 12_000  # as the worker asks for
FETCH_BYTES = RECORDS * 256


class Meter:
    """Counts listens until so many are read."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._read = self._first = 0
        self._began = self._spent = 0.0
        self.figures: dict[str, float] = {}

    def note(self, listens: int) -> bool:
        """Whether so many are read."""
        if listens and not self._read:
            self._began, self._spent, self._first = time.monotonic(), time.process_time(), listens
        self._read += listens
        if self._read >= self._count and not self.figures:
            took_s, spent_s = time.monotonic() - self._began, time.process_time() - self._spent
            read = self._read - self._first
            self.figures = {"listens_per_s": read / took_s, "us_of_cpu": 1e6 * spent_s / read}
        return bool(self.figures)


def confluent_kafka(brokers: str, topic: str, meter: Meter) -> None:
    """Batches by Consumer.consume, the bytes of each record looked at."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": uuid4().hex, "auto.offset.reset": "earliest",
         "enable.auto.commit": False, "max.partition.fetch.bytes": FETCH_BYTES}
    )  # fmt: skip
    consumer.subscribe([topic])
    while not meter.note(len([message.value() for message in consumer.consume(RECORDS, timeout=0.1)])):
        pass
    consumer.close()


def aiokafka(brokers: str, topic: str, meter: Meter) -> None:
    """Batches by AIOKafkaConsumer.getmany, with the options of the worker."""
    from aiokafka import AIOKafkaConsumer

    async def read() -> None:
        options: dict[str, Any] = {"max_poll_records": RECORDS, "max_partition_fetch_bytes": FETCH_BYTES}
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=brokers, group_id=uuid4().hex, auto_offset_reset="earliest",
            enable_auto_commit=False, isolation_level="read_committed", **options,
        ) as consumer:  # fmt: skip
            while not meter.note(sum(map(len, (await consumer.getmany(timeout_ms=100)).values()))):
                pass

    asyncio.run(read())


def quix(brokers: str, topic: str, meter: Meter) -> None:
    """An application that does nothing with a record."""
    from quixstreams import Application

    application = Application(
        broker_address=brokers, consumer_group=uuid4().hex, auto_offset_reset="earliest", auto_create_topics=False,
        commit_every=12 * RECORDS, commit_interval=60.0, loglevel="ERROR",
    )  # fmt: skip
    read = application.topic(topic, key_deserializer="bytes", value_deserializer="bytes")

    def look(_: Any) -> None:
        if meter.note(1):
            application.stop()

    application.dataframe(read).update(look)
    application.run()


READERS = {"confluent-kafka": confluent_kafka, "aiokafka": aiokafka, "quix": quix}


def main(reader: str, brokers: str, topic: str, count: str) -> None:
    """Read, and say the figures."""
    meter = Meter(int(count))
    READERS[reader](brokers, topic, meter)
    print(json.dumps(meter.figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
