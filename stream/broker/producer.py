"""Faust's producer, changed: it is idempotent, and replaced where a broker does not know it any more."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import aiokafka
import structlog
from aiokafka.errors import InvalidProducerEpoch, KafkaError, OutOfOrderSequenceNumber, UnknownProducerId
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.transport.drivers import aiokafka as driver

from stream.broker.batch import LOGGER

log = structlog.get_logger(__name__)

_STATE_LOST = (OutOfOrderSequenceNumber, UnknownProducerId, InvalidProducerEpoch)
"""What a broker answers an idempotent producer whose last records it does not know, as after a power cut."""

_END_TIMEOUT_S = 2.0


class BatchProducer(driver.Producer):
    """An idempotent producer: a try that Kafka takes late cannot stand behind, or instead of, what was sent after it.

    Such a producer numbers its records, and a broker that has lost the last of them refuses all that follow. Then a
    new producer takes over.
    """

    app: Any
    logger = LOGGER

    def __post_init__(self) -> None:
        super().__post_init__()
        self._renewing: asyncio.Task[None] | None = None

    def _settings_auth(self) -> Mapping[str, Any]:
        """Overridden to use the arguments that all clients share."""
        return self.app.client_arguments

    def _settings_extra(self) -> Mapping[str, Any]:
        """Overridden because Faust makes a producer idempotent only inside transactions."""
        return {"enable_idempotence": True}

    async def on_stop(self) -> None:
        """Overridden to bound the end: while Kafka is away, what was not sent stays unsent, and its record undone."""
        await asyncio.wait([asyncio.create_task(super().on_stop())], timeout=_END_TIMEOUT_S)

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        """Overridden to look at the outcome."""
        producer = self._ensure_producer()
        sent: Any = await super().send(*args, **kwargs)
        sent.add_done_callback(functools.partial(self._look, producer))
        return sent

    async def send_many(self, topic: str, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Send records, each (key, value), in as few batches as they fit into; returns when all are acknowledged.

        Faust and aiokafka would give each record a future and callbacks of its own, which cost more than the record.
        Where some are refused the others are sent nevertheless, and the first error is raised.
        """
        from stream.broker.key_hashes import key_hashes  # the main process of a worker for tracks has no numpy

        producer = self._ensure_producer()
        partitions = sorted(await producer.partitions_for(topic))
        batches, last = list[tuple[int, BatchBuilder]](), dict[int, BatchBuilder]()
        records = list(records)
        hashes = key_hashes([key for key, _ in records]) & 0x7FFFFFFF  # as aiokafka's and Java's default partitioners
        for (key, value), place in zip(records, (hashes % len(partitions)).tolist(), strict=True):
            partition = partitions[place]
            record = {"timestamp": None, "key": key, "value": value}
            if partition not in last or last[partition].append(**record) is None:  # it is full
                last[partition] = producer.create_batch()
                last[partition].append(**record)
                batches.append((partition, last[partition]))
        outcomes = await asyncio.gather(
            *(self._send_batch(producer, topic, partition, batch) for partition, batch in batches),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _send_batch(
        self, producer: aiokafka.AIOKafkaProducer, topic: str, partition: int, batch: BatchBuilder
    ) -> None:
        sent = await producer.send_batch(batch, topic, partition=partition)
        sent.add_done_callback(functools.partial(self._look, producer))
        await sent

    def _look(self, producer: aiokafka.AIOKafkaProducer, sent: asyncio.Future[Any]) -> None:
        """Look at an outcome: where the broker has lost the producer's state, another one takes over."""
        lost = not sent.cancelled() and isinstance(sent.exception(), _STATE_LOST)
        if lost and producer is self._producer and not self._renewing:
            log.warning("kafka.new_producer", error=repr(sent.exception()))
            self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        old, new = self._producer, self._new_producer()
        try:
            await new.start()
            self._producer = new
        except KafkaError as error:  # the next record that is refused tries again
            log.warning("kafka.no_new_producer", error=repr(error))
            old = new
        finally:
            self._renewing = None
        if old is not None:
            await old.stop()
