"""Faust's consumer, changed: it hands out whole fetches, and commits a record when it is done.

Faust acknowledges an event when its agent asks for the next one, even when the agent raised, and spends 75 to
100 us on each event. Here one Faust message is a whole fetch: Faust moves it from the consumer to the agent, and the
offset that is committed is computed from the records that are done. The consumer tells where Kafka lost records, and
no step of its stop waits for a broker for long.

This module and its neighbours (batch, consumer_thread, resumption, producer) override private methods of
faust-streaming, which is therefore pinned exactly. Each override says why it is there;
tests/integration/test_batches.py holds the behaviour on a real broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import structlog
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream import metrics
from stream.broker.batch import LOGGER, Batch, Fetch
from stream.broker.consumer_thread import LEAVE_TIMEOUT_S, ConsumerThread

log = structlog.get_logger(__name__)

_REVOKE_COMMIT_TIMEOUT_S = 5.0
_FETCHES_AHEAD = 4  # so many full ones are in hand, or wait
_FULL_TIMEOUT_S = 0.02
_SEEK_AGAIN_S = 1.0


class BatchConsumer(driver.Consumer):
    """Hands out whole fetches, and commits up to the first record that is not done."""

    app: Any
    logger = LOGGER
    _thread: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._uncommitted: defaultdict[TP, deque[Batch]] = defaultdict(deque)
        self._read_to: dict[TP, int] = {}
        self._room = asyncio.Event()
        self.joined = False
        """Whether the consumer group has given this worker its partitions, which may be none."""
        self.flows = False
        """Whether records come: from the resumption after an assignment to the next rebalance."""

    async def check_group(self) -> None:
        """Raise aiokafka's KafkaError where Kafka refuses this worker its place in the group."""
        await cast(ConsumerThread, self._thread).check_group()

    async def check_rights(self, topics: Collection[str]) -> None:
        """Raise aiokafka's KafkaError where this worker may not write to one of the topics."""
        await cast(ConsumerThread, self._thread).check_rights(topics)

    def next_offset(self, tp: TP) -> int | None:
        """Offset of the first record that is not done; None until the seek that follows an assignment."""
        for batch in self._uncommitted.get(tp, ()):
            if not batch.done:
                return batch.committable
        return self._read_to.get(tp)

    def _new_consumer_thread(self) -> ConsumerThread:
        """Overridden to use the thread above."""
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """Overridden so that Faust sees one message for each topic of a fetch."""
        self._room.clear()
        partitions = self._with_room(active_partitions or set())
        if not partitions:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), timeout)
            return {}
        if active_partitions != partitions:  # the others may have room before these bring records
            timeout = min(timeout, _FULL_TIMEOUT_S)
        try:
            fetched: Any = await super()._getmany(partitions, timeout)
        except NoOffsetForPartitionError:  # assigned, and the seek is still to come
            return {}
        except OffsetOutOfRangeError as error:
            for tp, offset in error.args[0].items():
                await self._find_again(ensure_TP(tp), offset)
            return {}
        batches = defaultdict[str, list[Batch]](list)
        for tp, records in fetched.records.items():
            if records and tp in self._read_to:  # else the partition was taken away meanwhile
                batch = Batch(tp, records, on_done=self._room.set)
                self._uncommitted[tp].append(batch)
                batches[tp.topic].append(batch)
        self._read_to.update((tp, offset) for tp, offset in fetched.read_to.items() if tp in self._read_to)
        return {of_topic[0].tp: [Fetch(of_topic, self.app.consumer_generation_id)] for of_topic in batches.values()}

    def _with_room(self, tps: set[TP]) -> set[TP]:
        """The partitions that are read now.

        Batches that are handled as a whole are read ahead, so that all that has come is handled together. What is read
        ahead is bounded, also of a partition: one whose batches take long leaves room for the others.
        """
        whole = {tp for tp in tps if tp.topic in self.app.topics_of_whole_batches}
        undone = {tp: sum(batch.undone for batch in self._uncommitted[tp]) for tp in whole}
        full_fetch = self.app.conf.broker_max_poll_records
        if sum(undone.values()) >= _FETCHES_AHEAD * full_fetch:
            return tps - whole
        return tps - {tp for tp, count in undone.items() if count >= full_fetch}

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

    def _to_message(self, tp: TP, record: Any) -> Fetch:  # noqa: ARG002
        """Overridden because `record` is the fetch from _getmany."""
        return record

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Overridden to do nothing: Faust notes offsets that compaction removed, and a batch knows its own end."""

    def ack(self, message: Any) -> bool:
        """Overridden because Faust calls it when the agent asks for the next fetch: that says nothing of records."""
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
        self._room.set()

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
        await self.commit_within(LEAVE_TIMEOUT_S)

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


def _utc(time_ms: int | None) -> str | None:
    return None if time_ms is None else datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat()
