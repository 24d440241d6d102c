"""The thread in which aiokafka's consumer runs: it serves several calls at once, and ends within a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.structs import ConsumerRecord
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import MethodQueue, WorkerThread

from stream.broker.batch import LOGGER
from stream.broker.consumer_header_names import read_all_header_names
from stream.broker.rights import check_rights

LEAVE_TIMEOUT_S = 2.0
"""How long a step of a stop waits for a broker that is away."""

_CALLS_AT_ONCE = 8
_COLLECTED_BYTES, _COLLECTED_MS = 2**20, 50
_METADATA_MAX_AGE_MS = 30_000  # how long a topic that was made anew, or got more partitions, waits for its workers


class Fetched(NamedTuple):
    """What a fetch brought, and the offset up to which each partition has been read with it.

    The offset is more than that of the last record plus one where markers of transactions or aborted records follow.
    """

    records: Mapping[TP, Sequence[ConsumerRecord]]
    read_to: Mapping[TP, int]


class HeldLog(NamedTuple):
    """What Kafka holds of a partition: its first offset, the one after its last, and the time of the first record."""

    begin: int
    end: int
    oldest_ms: int | None


class _Daemon(WorkerThread):
    """A thread that does not keep the process from ending: what it waits for may be a broker that is away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to Kafka, able to serve several calls at once."""

    app: Any
    Worker = _Daemon
    logger = LOGGER

    @property
    def method_queue(self) -> MethodQueue:
        """Overridden because Faust's queue has two workers.

        While a broker hangs, a commit and a check of progress would take both, and the fetches from all other brokers
        would stop.
        """
        if self._method_queue is None:
            self._method_queue = MethodQueue(num_workers=_CALLS_AT_ONCE, loop=self.thread_loop, beacon=self.beacon)
        return self._method_queue

    async def on_thread_stop(self) -> None:
        """Overridden to end within a bounded time: while a broker hangs, leaving the group takes as long as that."""
        leaving = asyncio.create_task(super().on_thread_stop())
        await asyncio.wait([leaving], timeout=LEAVE_TIMEOUT_S)
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
        read_all_header_names()
        conf = self.app.conf
        whole = self.app.topics_of_whole_batches
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
            # Whole batches cost less the larger they are, so the broker collects for a moment.
            fetch_min_bytes=_COLLECTED_BYTES if whole else 1,
            fetch_max_wait_ms=_COLLECTED_MS if whole else 1500,
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
        return Fetched(records, read_to)

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

    async def find_again(self, tp: TP, offset: int) -> HeldLog:
        """What Kafka holds of a partition. Where the offset is not in it, the next fetch begins at its begin."""
        return await self.call_thread(self._find_again, tp, offset)

    async def _find_again(self, tp: TP, offset: int) -> HeldLog:
        consumer = self._ensure_consumer()
        begins, ends = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
        oldest = (await consumer.offsets_for_times({tp: 0})).get(tp)
        held = HeldLog(begins[tp], ends[tp], oldest.timestamp if oldest else None)
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

    async def check_rights(self, topics: Collection[str]) -> None:
        """Raise aiokafka's KafkaError where this client may not write to one of the topics."""
        consumer = self._ensure_consumer()
        node_id = getattr(consumer._coordinator, "coordinator_id", None)
        if node_id is not None and topics:  # a broker that is alive, if any is
            await self.call_thread(check_rights, consumer._client, node_id, topics)
