"""Faust's aiokafka driver, changed: a stream carries whole fetched batches, and a record is committed when it is done.

Faust acknowledges an event when its agent asks for the next one, even when the agent raised, and spends 75 to
100 us on each event. Here one Faust message is a whole batch: Faust moves it from the consumer to the agent, and the
offset that is committed is computed from the records that are done. The consumer reads what transactions committed and
tells where Kafka lost records, the producer is idempotent, and no step of a stop waits for a broker for long.

The classes override private methods of faust-streaming, which is therefore pinned exactly. Each override says why
it is there; tests/integration/test_batches.py holds the behaviour on a real broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import aiokafka
import faust
import structlog
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    IllegalStateError,
    InvalidProducerEpoch,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumber,
    UnknownProducerId,
)
from aiokafka.structs import ConsumerRecord
from faust.tables.manager import TableManager
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.threads import MethodQueue, WorkerThread

from stream import metrics

LOGGER = logging.getLogger("faust.batches")  # one name for what Faust logs of the classes that are changed here
log = structlog.get_logger(__name__)

PRODUCER_STATE_LOST = (OutOfOrderSequenceNumber, UnknownProducerId, InvalidProducerEpoch)
"""What a broker answers an idempotent producer whose last records it does not know, as after a power cut."""

_REVOKE_COMMIT_TIMEOUT_S = 5.0
_LEAVE_TIMEOUT_S = 2.0
_CALLS_AT_ONCE = 8
_SEEK_AGAIN_S = 1.0
_METADATA_MAX_AGE_MS = 30_000  # how long a topic that was made anew, or got more partitions, waits for its workers


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


class _Fetched(NamedTuple):
    """What a fetch brought, and the offset up to which each partition has been read with it.

    The offset is more than that of the last record plus one where markers of transactions or aborted records follow.
    """

    records: Mapping[TP, Sequence[ConsumerRecord]]
    read_to: Mapping[TP, int]


class _Log(NamedTuple):
    """What Kafka holds of a partition: its first offset, the one after its last, and the time of the first record."""

    begin: int
    end: int
    oldest_ms: int | None


class _Daemon(WorkerThread):
    """A thread that does not keep the process from ending: what it waits for may be a broker that is away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to Kafka, able to serve several calls at once."""

    app: Any
    Worker = _Daemon
    logger = LOGGER

    @property
    def method_queue(self) -> MethodQueue:
        # Faust's queue has two workers. While a broker hangs, a commit and a check of progress would take both, and
        # the fetches from all other brokers would stop.
        if self._method_queue is None:
            self._method_queue = MethodQueue(num_workers=_CALLS_AT_ONCE, loop=self.thread_loop, beacon=self.beacon)
        return self._method_queue

    async def on_thread_stop(self) -> None:
        """Overridden to end within a bounded time: while a broker hangs, leaving the group takes as long as that."""
        leaving = asyncio.create_task(super().on_thread_stop())
        await asyncio.wait([leaving], timeout=_LEAVE_TIMEOUT_S)
        if leaving.done() and not leaving.cancelled() and (error := leaving.exception()):
            LOGGER.info("left the group: %r", error)

    def set_shutdown(self) -> None:
        """Overridden because the worker may have ended without waiting for this thread."""
        with contextlib.suppress(RuntimeError):  # its event loop is closed
            super().set_shutdown()

    def on_crash(self, msg: str, *fmt: Any, **_: Any) -> None:
        """Overridden because mode prints a traceback; the worker tells what happened in its last sentence."""
        LOGGER.info(msg.format(*fmt))

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:  # noqa: ARG002
        """Overridden because Faust reads what transactions have not committed, and cannot be told otherwise.

        An offset that the log does not hold raises: BatchConsumer tells of it. aiokafka's sticky assignor would be
        kinder to a rolling restart, but it never tells the group its generation, without which two members that claim
        a partition cannot be told apart, and all consumers of a process share its state.
        """
        conf = self.app.conf
        return aiokafka.AIOKafkaConsumer(
            **self.app.client_arguments,
            client_id=conf.broker_client_id,
            client_rack=self.app.client_rack,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=1500,
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
        )

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        """Overridden to tell how far the partitions have been read, in the same step as the fetch."""
        records = await super()._fetch_records(*args, **options)
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription and subscription.assignment
        states = {tp: assignment.state_value(tp) for tp in assignment.tps} if assignment else {}
        read_to = {ensure_TP(tp): state.position for tp, state in states.items() if state.has_valid_position}
        return _Fetched(records, read_to)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek each partition to its committed offset, or to its begin where there is none; returns the offsets.

        Overridden because aiokafka does not seek where nothing is committed.
        """
        return await self.call_thread(self._seek_to_committed)

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        committed = {tp: await consumer.committed(tp) for tp in consumer.assignment()}
        begins = await consumer.beginning_offsets([tp for tp, offset in committed.items() if offset is None])
        places = {ensure_TP(tp): begins[tp] if offset is None else offset for tp, offset in committed.items()}
        for tp, offset in places.items():
            consumer.seek(tp, offset)
        return places

    async def find_again(self, tp: TP, offset: int) -> _Log:
        """What Kafka holds of a partition. Where the offset is not in it, the next fetch begins at its begin."""
        return await self.call_thread(self._find_again, tp, offset)

    async def _find_again(self, tp: TP, offset: int) -> _Log:
        consumer = self._ensure_consumer()
        begins, ends = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
        oldest = (await consumer.offsets_for_times({tp: 0})).get(tp)
        held = _Log(begins[tp], ends[tp], oldest.timestamp if oldest else None)
        if not held.begin <= offset <= held.end:
            consumer.seek(tp, held.begin)
        return held

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
    _thread: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._uncommitted: defaultdict[TP, deque[Batch]] = defaultdict(deque)
        self._read_to: dict[TP, int] = {}
        self.joined = False
        """Whether the consumer group has given this worker its partitions, which may be none."""
        self.flows = False
        """Whether records come: from the resumption after an assignment to the next rebalance."""

    async def check_group(self) -> None:
        """Raise aiokafka's KafkaError where Kafka refuses this worker its place in the group."""
        await cast(_ConsumerThread, self._thread).check_group()

    def next_offset(self, tp: TP) -> int | None:
        """Offset of the first record that is not done; None until the seek that follows an assignment."""
        for batch in self._uncommitted.get(tp, ()):
            if not batch.done:
                return batch.committable
        return self._read_to.get(tp)

    def _new_consumer_thread(self) -> _ConsumerThread:
        """Overridden to use the thread above."""
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """Overridden so that Faust sees one message, a batch, for each partition of a fetch."""
        try:
            fetched: Any = await super()._getmany(active_partitions, timeout)
        except NoOffsetForPartitionError:  # assigned, and the seek is still to come
            return {}
        except OffsetOutOfRangeError as error:
            for tp, offset in error.args[0].items():
                await self._find_again(ensure_TP(tp), offset)
            return {}
        batches = {}
        for tp, records in fetched.records.items():
            if records and tp in self._read_to:  # else the partition was taken away meanwhile
                batches[tp] = [Batch(tp, records, self.app.consumer_generation_id)]
                self._uncommitted[tp] += batches[tp]
        self._read_to.update((tp, offset) for tp, offset in fetched.read_to.items() if tp in self._read_to)
        return batches

    async def _find_again(self, tp: TP, offset: int) -> None:
        """Go on with what Kafka holds of a partition that does not hold the offset that was to be read.

        Where the log begins later, retention took records that nobody had read. Where it ends before, it was cut: a
        power cut with one replica, an unclean election, a topic made anew. Which of its records are new cannot be
        told, so all of them are handled; those that have an answer cost a look at Redis.
        """
        try:
            held = await self._thread.find_again(tp, offset)
        except KafkaError:  # the partition was taken away meanwhile, or the next fetch asks again
            return
        place = {"topic": tp.topic, "partition": tp.partition, "offset": offset}
        if held.begin <= offset <= held.end:  # as for a moment while a leader changes
            await asyncio.sleep(_SEEK_AGAIN_S)
            return
        if offset < held.begin:
            metrics.LOST_TO_RETENTION.inc(held.begin - offset)
            log.error("kafka.lost_to_retention", **place, lost=held.begin - offset, left_from=_utc(held.oldest_ms),
                      advice="Kafka dropped records before a worker had read them; send them again")  # fmt: skip
        else:
            metrics.LOG_CUTS.inc()
            log.error("kafka.log_was_cut", **place, begin=held.begin, end=held.end,
                      advice="Kafka lost records that had been read; what it still holds is handled again")  # fmt: skip
            self._uncommitted.pop(tp, None)  # what is in hand goes on, but its offsets are no longer those of the log
        self._read_offset[tp] = None
        self._read_to[tp] = held.begin

    async def perform_seek(self) -> None:
        """Overridden to do nothing: Faust seeks when a fetch ends after the flow was stopped.

        After a rebalance `begin_again` seeks; a drain reads no more, and commits what it finishes.
        """

    async def begin_again(self) -> None:
        """Seek to the committed offsets after an assignment.

        Everything in hand is read again, so its batches are marked as revoked. Faust's own seek would have it drop
        batches that begin below the offset that it knows as committed.
        """
        for tp, offset in (await self._thread.seek_to_committed()).items():
            self._forget([tp])
            self._read_offset[tp] = None
            self._read_to[tp] = self._committed_offset[tp] = offset

    def _to_message(self, tp: TP, record: Any) -> Batch:  # noqa: ARG002
        """Overridden because `record` is the batch from _getmany."""
        return record

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
        return (tp for tp in list(self._read_to) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        """Overridden to commit up to the first record that is not done, or past the markers behind the last one."""
        return self.next_offset(tp)

    def _should_commit(self, tp: TP, offset: int | None) -> bool:
        """Overridden because after a log was cut the offsets begin anew, below the one that is committed."""
        return offset is not None and offset != self._committed_offset[tp]

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
            uncommitted = self._uncommitted[tp]
            while uncommitted and uncommitted[0].done and uncommitted[0].committable <= offset:
                uncommitted.popleft()
        return True

    def _forget(self, tps: Any) -> None:
        for tp in list(tps):
            self._read_to.pop(tp, None)
            for batch in self._uncommitted.pop(tp, ()):
                batch.revoked = True

    async def commit_within(self, timeout_s: float) -> None:
        """Commit what is done; what Kafka does not take in time is delivered again."""
        await asyncio.wait([asyncio.create_task(self.commit())], timeout=timeout_s)

    async def maybe_wait_for_commit_to_finish(self) -> bool:
        """Overridden because Faust takes a cancellation of the one that waits for that of the commit, and starts anew.

        A worker that ends while Kafka is away would then wait for it.
        """
        other = self._commit_fut
        if other is None:
            return False
        await asyncio.wait([other])
        return not other.cancelled()

    async def on_stop(self) -> None:
        """Overridden to bound the last commit."""
        await self.commit_within(_LEAVE_TIMEOUT_S)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Overridden to commit what is done while the partitions are still ours, and to mark their batches as revoked.

        The commit comes first because the base class forgets what was committed.
        """
        self.flows = False
        await self.commit_within(_REVOKE_COMMIT_TIMEOUT_S)
        self._forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Overridden because the seek that follows has everything in hand read again."""
        self.joined = True
        self.flows = False
        self._forget(self._read_to)
        await super().on_partitions_assigned(assigned, generation_id)


class NoTables(TableManager):
    """Resumes the flow after an assignment. Faust restores its tables first, and here are none.

    Faust's recovery ends for good where the seek to the committed offsets takes longer than a request may: the worker
    holds its partitions and reads nothing. Here the seek takes as long as it takes.
    """

    app: Any
    logger = LOGGER

    async def on_start(self) -> None:
        """Overridden to wait for nothing: Faust gives its tables a second to register."""
        self._tables_finalized.set()
        self._tables_registered.set()

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Overridden to do nothing: no changelog is to be flushed."""

    async def wait_until_recovery_completed(self) -> bool:
        """Overridden to wait for nothing."""
        return False

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],  # noqa: ARG002
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,  # noqa: ARG002
    ) -> None:
        """Overridden to resume the flow in the background: the rebalance ends, whether or not the seek is answered."""
        self.add_future(self._resume(assigned, self.app.rebalancing_count))

    async def _resume(self, assigned: set[TP], rebalance: int) -> None:
        consumer: BatchConsumer = self.app.consumer
        while assigned:
            try:
                await consumer.begin_again()
                break
            except KafkaError as error:
                if rebalance != self.app.rebalancing_count:
                    return
                if not error.retriable and not isinstance(error, IllegalStateError):  # a partition was taken away
                    raise
                await self.sleep(_SEEK_AGAIN_S)
        if rebalance != self.app.rebalancing_count or self.should_stop:
            return  # the next assignment resumes
        consumer.resume_partitions(assigned)
        self.app.flow_control.resume()
        consumer.resume_flow()
        await self.app._fetcher.maybe_start()
        consumer.flows = True
        self.app.on_rebalance_end()


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
        await asyncio.wait([asyncio.create_task(super().on_stop())], timeout=_LEAVE_TIMEOUT_S)

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        """Overridden to look at the outcome."""
        producer = self._producer
        sent: Any = await super().send(*args, **kwargs)

        def look(sent: asyncio.Future[Any]) -> None:
            lost = not sent.cancelled() and isinstance(sent.exception(), PRODUCER_STATE_LOST)
            if lost and producer is self._producer and not self._renewing:
                log.warning("kafka.new_producer", error=repr(sent.exception()))
                self._renewing = asyncio.ensure_future(self._renew())

        sent.add_done_callback(look)
        return sent

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


class BatchTransport(driver.Transport):
    """Faust's transport with the consumer and the producer above."""

    Consumer = BatchConsumer
    Producer = BatchProducer


def _utc(time_ms: int | None) -> str | None:
    return None if time_ms is None else datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat()
