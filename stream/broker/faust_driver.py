"""A Faust app whose agents take whole fetched batches, and commit a record when it is done, never before.

Faust acknowledges an event when its agent asks for the next one, also when the agent raised, and spends
75 to 100 us on each. Here a batch is one Faust message: Faust moves it from the consumer to the agent, and
the offset that is committed comes from the records themselves. `BatchApp.consume` is the only way in, so
that no agent can forget to say what is done.

It overrides private parts of Faust's aiokafka driver (_getmany, _to_message, _add_gap, _new_offset,
_filter_tps_with_pending_acks, _commit_offsets, _new_consumer_thread), so faust-streaming is pinned exactly, and
tests/integration/test_batches.py holds the behaviour on a real broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import faust
import structlog
from aiokafka.structs import ConsumerRecord
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.threads import MethodQueue
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
    wait_random,
)

log = structlog.get_logger(__name__)

UNEXPECTED_TRIES = 3
_REVOKE_COMMIT_TIMEOUT_S = 5.0
_CALLS_AT_ONCE = 8


class Batch(ConsumerMessage):
    """One Faust message for all records fetched from a partition in one go."""

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
        """The effect of a record is durable."""
        self._pending.pop(record.offset, None)
        if self.done:
            self.records = ()

    @property
    def committable(self) -> int:
        """All offsets before this one are done."""
        return next(iter(self._pending), self._end)

    @property
    def done(self) -> bool:
        """Every record is."""
        return not self._pending


class _BatchSchema(faust.Schema):
    """The stream's value is the batch itself."""

    def loads_key(self, *_: Any, **__: Any) -> None:
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Serves a fetch, a commit and a check of progress side by side, and what a rebalance asks.

    With the two workers of Faust's own, a broker that hangs with a commit and a check stops the fetches from all.
    """

    logger = logging.getLogger("faust.batches")

    @property
    def method_queue(self) -> MethodQueue:
        if self._method_queue is None:
            self._method_queue = MethodQueue(num_workers=_CALLS_AT_ONCE, loop=self.thread_loop, beacon=self.beacon)
        return self._method_queue


class _BatchConsumer(driver.Consumer):
    logger = logging.getLogger("faust.batches")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inflight: defaultdict[TP, deque[Batch]] = defaultdict(deque)
        self._handed_out: dict[TP, int] = {}
        self.joined = False

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        fetched = await super()._getmany(active_partitions, timeout)
        return {tp: [records] for tp, records in fetched.items() if records}

    def _to_message(self, tp: TP, record: Any) -> Batch:
        batch = Batch(tp, record, self.app.consumer_generation_id)
        self._inflight[tp].append(batch)
        self._handed_out[tp] = record[-1].offset + 1
        return batch

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch knows its next offset: what compaction took away does not matter."""

    def ack(self, message: Any) -> bool:
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def next_offset(self, tp: TP) -> int | None:
        """Offset of the first record that is not done; None before the first batch of an assignment."""
        for batch in self._inflight.get(tp, ()):
            if not batch.done:
                return batch.committable
        return self._handed_out.get(tp)

    def started_at(self, tp: TP, position: int) -> int:
        """Note where a partition stands before its first batch; returns its next offset."""
        return self._handed_out.setdefault(tp, position)

    async def verify_all_partitions_active(self) -> None:
        """Nothing: readiness looks at progress against lag itself."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._inflight) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        offset = None
        for batch in self._inflight[tp]:
            offset = batch.committable
            if not batch.done:
                break
        return offset

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Commit what is still assigned; returns whether Kafka took it.

        Faust notes offsets as committed that Kafka did not take, and would not try them again. It also waits
        for all that is being sent, but a record is done only when Kafka has acknowledged what it sent.
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
        # Before the base class forgets what was committed; a commit that does not come is a redelivery.
        # Not cancelled: a commit of Faust that is cancelled while it waits for another one starts anew.
        await asyncio.wait([asyncio.create_task(self.commit())], timeout=_REVOKE_COMMIT_TIMEOUT_S)
        self._forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.joined = True
        self._forget(self._handed_out)  # Faust seeks to the committed offsets: all else is read anew
        await super().on_partitions_assigned(assigned, generation_id)


class _BatchTransport(driver.Transport):
    Consumer = _BatchConsumer


class LeftAlone(BaseException):
    """The record is left to the next worker, since this one is draining; no retry and no dead letter catches it."""


class Handler(NamedTuple):
    """What an agent does with a record.

    handle returns when the effect of the record is durable; what takes long in it takes a turn
    (BatchApp.turn). is_away says of an exception that a server is not there: then the record waits, however
    long. Any other exception gets a few tries, then give_up, which must leave the record somewhere durable.
    order gives the key under which records wait for one another; None waits for nobody. on_wait hears of
    every wait.
    """

    handle: Callable[[ConsumerRecord], Awaitable[None]]
    give_up: Callable[[ConsumerRecord, Exception, int], Awaitable[None]]
    is_away: Callable[[BaseException], bool]
    order: Callable[[ConsumerRecord], Hashable | None]
    on_wait: Callable[[BaseException], None]


class Progress(NamedTuple):
    """Where a partition stands: the next record to finish, and the end of the log."""

    next_offset: int
    end_offset: int


class _Window:
    """At most `size` records in flight over all batches, side by side; those of one key in order."""

    def __init__(self, handler: Handler, *, size: int, on_done: Callable[[ConsumerRecord], None]) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.waiting: dict[asyncio.Task[None], BaseException] = {}
        self._handler = handler
        self._on_done = on_done
        self._free = asyncio.Semaphore(size)
        self._last: dict[Hashable, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

    async def run(self, stream: Any) -> None:
        async for batch in stream:
            for record in batch.records:
                await self._free.acquire()
                if batch.revoked or self._stopping.is_set():
                    self._free.release()
                    break
                self._start(batch, record)

    def _start(self, batch: Batch, record: ConsumerRecord) -> None:
        key = self._handler.order(record)
        task = asyncio.create_task(self._one(batch, record, self._last.get(key)))
        self.tasks.add(task)
        if key is not None:
            self._last[key] = task

        def ended(task: asyncio.Task[None]) -> None:
            self._free.release()
            self.tasks.discard(task)
            self.waiting.pop(task, None)
            if self._last.get(key) is task:
                del self._last[key]
            if not task.cancelled():
                task.exception()  # waiting when its partition was taken away or at the stop, or left alone

        task.add_done_callback(ended)

    async def _one(self, batch: Batch, record: ConsumerRecord, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait([before])

        if batch.revoked:
            return
        try:
            await self._handler.handle(record)  # all there is to it, nearly always; what retries is slower than this
        except Exception as error:  # noqa: BLE001 - whatever it is, it is dealt with
            await self._retry(batch, record, error)
        batch.finish(record)
        self._on_done(record)

    async def _retry(self, batch: Batch, record: ConsumerRecord, first: Exception) -> None:
        """Go on after a first try that failed; returns when the record is done."""
        failed: list[Exception] = [first]
        task = cast("asyncio.Task[None]", asyncio.current_task())

        async def handle() -> None:
            if failed:
                raise failed.pop()
            await self._handler.handle(record)

        def wait_noted(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if error and self._handler.is_away(error):
                self.waiting[task] = error
                self._handler.on_wait(error)
            else:
                self.waiting.pop(task, None)
                log.error("record.stuck", topic=record.topic, partition=record.partition, offset=record.offset,
                          error=repr(error))  # fmt: skip

        waiting = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
            stop=lambda _: batch.revoked or self._stopping.is_set(),
            sleep=self._sleep,
            before_sleep=wait_noted,
            reraise=True,
        )
        await waiting(self._settle, record, handle)

    async def _settle(self, record: ConsumerRecord, handle: Callable[[], Awaitable[None]]) -> None:
        tries = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and not self._handler.is_away(error)),
            wait=wait_random(0.05, 0.5),
            stop=stop_after_attempt(UNEXPECTED_TRIES),
            reraise=True,
        )
        try:
            await tries(handle)
        except Exception as error:
            if self._handler.is_away(error):
                raise
            log.exception("record.unexpected_error", topic=record.topic, partition=record.partition,
                          offset=record.offset)  # fmt: skip
            await self._handler.give_up(record, error, UNEXPECTED_TRIES)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def stop(self) -> None:
        self._stopping.set()

    async def finish(self, *, timeout_s: float) -> None:
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=timeout_s)
            for task in late:
                task.cancel()


class BatchApp(faust.App):
    """A Faust app that consumes through `consume` alone.

    Args:
        turns: how many records may take a turn at a time.
    """

    logger = logging.getLogger("faust.batches")

    def __init__(self, *args: Any, turns: int, **kwargs: Any) -> None:
        super().__init__(
            *args,
            table_standby_replicas=0,
            topic_disable_leader=True,
            stream_wait_empty=False,  # a rebalance does not wait for records: they are known to be revoked
            **kwargs,
        )
        self._windows: list[_Window] = []
        self._consumed: set[str] = set()
        self._turns = asyncio.Semaphore(turns)
        self._reached: dict[TP, int] = {}
        self._draining = False

    def _new_transport(self) -> _BatchTransport:
        return _BatchTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """None: workers keep no state of their own."""

    def agent(self, *_: Any, **__: Any) -> Any:
        """Refused: an agent that Faust feeds loses the events that it raises on."""
        raise TypeError("a BatchApp has no plain agents; use BatchApp.consume(topic, handler, window=...)")

    def consume(self, topic: str, handler: Handler, *, window: int) -> None:
        """Register the agent of a topic.

        Args:
            topic: name of an existing topic.
            handler: what to do with a record.
            window: how many records may be in flight.
        """
        records = _Window(handler, size=window, on_done=self._reach)
        self._windows.append(records)
        self._consumed.add(topic)
        super().agent(self.topic(topic, schema=_BatchSchema()), name=f"tastewave.{topic}")(records.run)

    @contextlib.asynccontextmanager
    async def turn(self, record: ConsumerRecord) -> AsyncIterator[None]:
        """What takes long waits for its turn here; what does not flows past it.

        Raises LeftAlone while the app drains, unless a later record of the partition has had its turn or is
        done: that one would come again if this one did not get done as well.
        """
        async with self._turns:
            if self._draining and record.offset > self._reached.get(TP(record.topic, record.partition), -1):
                raise LeftAlone
            self._reach(record)
            yield

    def _reach(self, record: ConsumerRecord) -> None:
        tp = TP(record.topic, record.partition)
        self._reached[tp] = max(record.offset, self._reached.get(tp, -1))

    @property
    def in_flight(self) -> int:
        """Records that are being handled."""
        return sum(len(window.tasks) for window in self._windows)

    @property
    def waiting(self) -> list[BaseException]:
        """What each record that waits for a server was told last."""
        return [error for window in self._windows for error in window.waiting.values()]

    @property
    def joined(self) -> bool:
        """Whether the consumer group has given this worker its partitions, be it none."""
        return cast(_BatchConsumer, self.consumer).joined

    async def progress(self) -> dict[TP, Progress]:
        """Of every assigned partition, with the end of its log as the broker tells it now.

        A worker without a partition asks as well, so that it notices when Kafka is away.
        """
        consumer = cast(_BatchConsumer, self.consumer)
        tps = consumer.assignment()
        ends = await consumer.highwaters(*(tps or {TP(topic, 0) for topic in self._consumed}))
        progress = {}
        for tp, end in ends.items() if tps else ():
            next_offset = consumer.next_offset(tp)
            if next_offset is None:
                next_offset = consumer.started_at(tp, await consumer.position(tp) or 0)
            progress[tp] = Progress(next_offset, end)
        return progress

    async def drain(self, *, timeout_s: float) -> None:
        """Take nothing new, finish what is in hand within the time, commit it."""
        self._draining = True
        self.consumer.stop_flow()
        for window in self._windows:
            window.stop()
        await asyncio.gather(*(window.finish(timeout_s=timeout_s) for window in self._windows))
        await self.consumer.commit()
