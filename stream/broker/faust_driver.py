"""Faust's aiokafka driver, changed: a stream carries whole fetched batches, and a record is committed when it is done.

Faust acknowledges an event when its agent asks for the next one, even when the agent raised, and spends 75 to
100 us on each event. Here one Faust message is a whole batch: Faust moves it from the consumer to the agent, and the
offset that is committed is computed from the records that are done.

The classes override private methods of faust-streaming, which is therefore pinned exactly. Each override says why
it is there; tests/integration/test_batches.py holds the behaviour on a real broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import faust
from aiokafka.structs import ConsumerRecord
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.threads import MethodQueue

LOGGER = logging.getLogger("faust.batches")

_REVOKE_COMMIT_TIMEOUT_S = 5.0
_CALLS_AT_ONCE = 8


class Batch(ConsumerMessage):
    """All records that one fetch brought from a partition, as one Faust message."""

    def __init__(self, tp: TP, records: Sequence[ConsumerRecord], generation_id: int) -> None:
        first = records[0]
        super().__init__(
            topic=tp.topic,
            partition=tp.partition,
            offset=first.offset,
            timestamp=first.timestamp / 1000.0,
            timestamp_type=first.timestamp_type,
            headers=[],
            key=None,
            value=None,
            checksum=None,
            tp=tp,
            generation_id=generation_id,
        )
        self.records = records
        self.revoked = False
        self._end = records[-1].offset + 1
        self._pending = {record.offset: None for record in records}

    def finish(self, record: ConsumerRecord) -> None:
        """Note that a record is done: its effect is durable."""
        self._pending.pop(record.offset, None)
        if self.done:
            self.records = ()

    @property
    def committable(self) -> int:
        """The offset up to which every record is done."""
        return next(iter(self._pending), self._end)

    @property
    def done(self) -> bool:
        """Whether every record is done."""
        return not self._pending


class BatchSchema(faust.Schema):
    """Hands the batch to the stream as it is; Faust would deserialise a key and a value."""

    def loads_key(self, *_: Any, **__: Any) -> None:
        """None: a batch has no key."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        """The batch."""
        return message


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to Kafka, able to serve several calls at once."""

    logger = LOGGER

    @property
    def method_queue(self) -> MethodQueue:
        # Faust's queue has two workers. While a broker hangs, a commit and a check of progress would take both, and
        # the fetches from all other brokers would stop.
        if self._method_queue is None:
            self._method_queue = MethodQueue(num_workers=_CALLS_AT_ONCE, loop=self.thread_loop, beacon=self.beacon)
        return self._method_queue

    async def check_group(self) -> None:
        """Raise what Kafka has refused this member of the group with, if anything, and have aiokafka try again.

        aiokafka keeps such an error for whoever asks next for records, and does nothing until then. Faust asks for none
        before it has partitions, so that a worker that may not join would wait without a word.
        """
        if coordinator := self._ensure_consumer()._coordinator:

            async def check() -> None:
                coordinator.check_errors()

            await self.call_thread(check)


class BatchConsumer(driver.Consumer):
    """Hands out whole fetches, and commits up to the first record that is not done."""

    logger = LOGGER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inflight: defaultdict[TP, deque[Batch]] = defaultdict(deque)
        self._handed_out: dict[TP, int] = {}
        self.joined = False

    async def check_group(self) -> None:
        """Raise aiokafka's KafkaError where Kafka refuses this worker its place in the group."""
        await cast(_ConsumerThread, self._thread).check_group()

    def next_offset(self, tp: TP) -> int | None:
        """Offset of the first record that is not done; None before the first batch of an assignment."""
        for batch in self._inflight.get(tp, ()):
            if not batch.done:
                return batch.committable
        return self._handed_out.get(tp)

    def started_at(self, tp: TP, position: int) -> int:
        """Note where a partition stands before its first batch; returns its next offset."""
        return self._handed_out.setdefault(tp, position)

    def _new_consumer_thread(self) -> _ConsumerThread:
        """Overridden to use the thread above."""
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """Overridden so that Faust sees one message, a list of records, for each partition of a fetch."""
        fetched = await super()._getmany(active_partitions, timeout)
        return {tp: [records] for tp, records in fetched.items() if records}

    def _to_message(self, tp: TP, record: Any) -> Batch:
        """Overridden because `record` is the list from _getmany; the batch is kept until it is committed."""
        batch = Batch(tp, record, self.app.consumer_generation_id)
        self._inflight[tp].append(batch)
        self._handed_out[tp] = record[-1].offset + 1
        return batch

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Overridden to do nothing: Faust notes offsets that compaction removed, and a batch knows its own end."""

    def ack(self, message: Any) -> bool:
        """Overridden because Faust calls it when the agent asks for the next batch: that says nothing of records."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def verify_all_partitions_active(self) -> None:
        """Overridden to do nothing: readiness compares each partition's progress with its lag instead."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        """Overridden because Faust keeps acknowledged offsets, and here the batches say what can be committed."""
        return (tp for tp in list(self._inflight) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        """Overridden to commit up to the first record that is not done."""
        offset = None
        for batch in self._inflight[tp]:
            offset = batch.committable
            if not batch.done:
                break
        return offset

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Commit what is still assigned; returns whether Kafka took it.

        Overridden because Faust notes offsets as committed even when Kafka refused them, and does not try them again.
        It would also wait for everything that is being sent, but a record is done only after Kafka has acknowledged
        what was sent for it.
        """
        assigned = self.assignment()
        offsets = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        if not offsets or not await self._commit(offsets):
            return False
        for tp, offset in offsets.items():
            self._committed_offset[tp] = offset
            inflight = self._inflight[tp]
            while inflight and inflight[0].done and inflight[0].committable <= offset:
                inflight.popleft()
        return True

    def _forget(self, tps: Any) -> None:
        for tp in list(tps):
            self._handed_out.pop(tp, None)
            for batch in self._inflight.pop(tp, ()):
                batch.revoked = True

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Overridden to commit what is done while the partitions are still ours, and to mark their batches as revoked.

        The commit comes first because the base class forgets what was committed. A commit that does not answer in
        time is not cancelled: Faust starts a commit anew when one is cancelled while it waits for another. Records
        that stay uncommitted are delivered again.
        """
        await asyncio.wait([asyncio.create_task(self.commit())], timeout=_REVOKE_COMMIT_TIMEOUT_S)
        self._forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Overridden because Faust now seeks to the committed offsets, so that everything in hand is read again."""
        self.joined = True
        self._forget(self._handed_out)
        await super().on_partitions_assigned(assigned, generation_id)


class BatchTransport(driver.Transport):
    """Faust's transport with the consumer above."""

    Consumer = BatchConsumer
