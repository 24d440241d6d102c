"""The listens worker's peer: a Quix Streams application that calls the same functions. Run in build/quix.

python quix_listens.py GROUP RECORDS    # settings from TASTEWAVE_*, a batch of at most so many records; until SIGTERM

It takes batches as Quix Streams does with least work: a sink is handed record by record, and flushed at a checkpoint,
before its offsets are committed. (A window would write each record to RocksDB and to a changelog; a function for each
record would refresh a user with each listen.) The records of a flush are handled by partition, four side by side, as in
the worker. They go through the worker's own ListenHandler: decoding, history script, tower, users script, publishing
and the look whether another worker wrote meanwhile. Sending is Quix Streams' own, with acks of all replicas, and so is
the reading.

What it does not do: when a server is away it ends, and all of a checkpoint is handled anew; one record that raises ends
it again and again; there are no dead letters, no metrics and no health; one slow partition holds up all the others; a
rebalance in the middle of a flush waits for its end.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import gc
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn, cast

from confluent_kafka import KafkaException
from quixstreams import Application
from quixstreams.sinks import BaseSink

from models.contract import LISTENS
from models.release import load_release
from stream.broker.publish import Publisher
from stream.listens.agent import listens_agent, usable_tower
from stream.listens.handler import ListenHandler
from stream.settings import Settings, load_settings
from stream.store.client import async_client
from stream.worker.listens import _GC_THRESHOLD

PARTITIONS_AT_ONCE = 4


class Record(NamedTuple):
    """What the handler looks at of a record."""

    value: bytes


class QuixPublisher:
    """What the handler asks of a Publisher, with the producer of an application."""

    def __init__(self, producer: Any, settings: Settings) -> None:
        self._producer = producer
        self._topics = settings.topics

    async def send_many(self, topic: str, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Send records; returns when Kafka has acknowledged them."""
        name, errors = self._topics.named(topic), list[Any]()

        def look(error: Any, _: Any) -> None:
            if error is not None:
                errors.append(error)

        for key, value in records:
            self._producer.produce(name, value, key, on_delivery=look)
        await asyncio.to_thread(self._producer.flush)
        if errors:
            raise KafkaException(errors[0])

    async def dead_letter(self, _: Record, error: Exception) -> NoReturn:
        """End: the load has no such records."""
        raise error


class ListensSink(BaseSink):
    """Gathers the records of a checkpoint, and has them handled."""

    def __init__(self, handler: ListenHandler, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._handler = handler
        self._loop = loop
        self._turns = asyncio.Semaphore(PARTITIONS_AT_ONCE)
        self._records = defaultdict[int, list[Record]](list)

    def add(self, value: bytes, *_: Any, partition: int, **__: Any) -> None:
        """Keep a record."""
        self._records[partition].append(Record(value))

    def flush(self) -> None:
        """Handle what was kept."""
        batches, self._records = self._records.values(), defaultdict(list)
        self._loop.run_until_complete(self._handle(batches))

    async def _handle(self, batches: Iterable[list[Record]]) -> None:
        await asyncio.gather(*map(self._in_turn, batches))

    async def _in_turn(self, batch: list[Record]) -> None:
        async with self._turns:
            await self._handler.handle_batch(cast("Any", batch))


def main(group: str, records: str) -> None:
    """Refresh users until SIGTERM."""
    settings = load_settings()
    release = load_release(settings.worker.release)
    topic = settings.topics.named(LISTENS)
    application = Application(
        broker_address=",".join(settings.kafka.brokers), consumer_group=group, auto_offset_reset="earliest",
        auto_create_topics=False, commit_interval=60.0, commit_every=int(records),
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with application.get_producer() as producer:
        publisher = cast("Publisher", QuixPublisher(producer, settings))
        client = async_client(settings.redis)
        agent = listens_agent(settings, release, usable_tower(settings, release), client, publisher)
        read = application.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
        application.dataframe(read).sink(ListensSink(agent.handler, loop))
        gc.set_threshold(*_GC_THRESHOLD)
        application.run()
        loop.run_until_complete(client.aclose())


if __name__ == "__main__":
    main(*sys.argv[1:])
