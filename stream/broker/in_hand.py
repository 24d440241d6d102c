"""Records in hand: from a fetched batch to records that are done.

A record is done when its handler has returned, or has given it up after a few errors that nobody expected. While a
server is away it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import structlog
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from stream import traces
from stream.broker.batch import Batch
from stream.broker.handlers import BatchHandler, Handler, LeftAlone, RecordHandler

log = structlog.get_logger(__name__)

UNEXPECTED_TRIES = 3
"""How often a record is handled that raises errors which nobody expected; then it is given up."""

_UNEXPECTED_WAIT_S = (0.05, 0.5)
_AWAY_WAIT_S, _LONGEST_AWAY_WAIT_S = 0.2, 5.0  # doubles from the one to the other, plus up to a second by chance
_ASIDE_BYTES = 64 << 20
_ASIDE_TASK_BYTES = 16 << 10  # what a task takes beyond the values of its records, generously
_ASIDE_TRIES_PER_S = 100
# A piece of so many records takes no further partition. What a piece costs beyond its records then matters little, and
# in smaller pieces a record waits less: for what is in hand, not for all that came before it.
_ENOUGH_RECORDS = 1000


class UnexpectedBaseException(Exception):
    """A library raised inside a handler what is no Exception, such as a CancelledError that nobody asked for.

    That is the cause.
    """


_MEANT = (LeftAlone, KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a handler on purpose. Anything else that it raises is an error of its record."""


class Part(NamedTuple):
    """Some records of a batch, at least one."""

    batch: Batch
    records: Sequence[ConsumerRecord]


class Piece(NamedTuple):
    """Records that are handled together.

    Attributes:
        parts: at least one; those of a partition in the order of their offsets.
        unordered: the error of the handler's `order`, if it raised one; they are given up for it, and not handled.
    """

    parts: Sequence[Part]
    unordered: Exception | None = None

    @property
    def records(self) -> Sequence[ConsumerRecord]:
        """Those of all parts."""
        return [record for part in self.parts for record in part.records]

    @property
    def is_single(self) -> bool:
        """Whether it is one record."""
        return len(self.parts) == 1 and len(self.parts[0].records) == 1

    def held(self) -> Piece:
        """Without the parts whose partition was taken away; maybe none is left."""
        return self._replace(parts=[part for part in self.parts if not part.batch.revoked])

    def halves(self) -> tuple[Piece, Piece]:
        """Parts stay whole until there is only one."""
        parts = self.parts
        if len(parts) == 1:
            ((batch, records),) = parts
            middle = len(records) // 2
            parts = (Part(batch, records[:middle]), Part(batch, records[middle:]))
        middle = len(parts) // 2
        return self._replace(parts=parts[:middle]), self._replace(parts=parts[middle:])


class InHand(ABC):
    """A task for each piece of the stream that is in hand.

    Args:
        handler: what to do with the records.
        size: how many pieces are handled side by side.
        on_away: called with each error that makes a record wait for a server.
        on_done: called with records of a partition that are done, in the order of their offsets.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        size: int,
        on_away: Callable[[BaseException], None],
        on_done: Callable[[Sequence[ConsumerRecord]], None],
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.waiting: dict[asyncio.Task[None], BaseException] = {}
        """The tasks that wait for a server, each with the error that said so."""
        self._errors = handler
        self._size = size
        self._on_away = on_away
        self._on_done = on_done
        self._stopping = asyncio.Event()

    @abstractmethod
    async def run(self, stream: Any) -> None:
        """Take fetches from the stream until it ends."""

    @abstractmethod
    async def _handle(self, records: Sequence[ConsumerRecord]) -> None:
        """Have the handler handle a piece."""

    def stop(self) -> None:
        """Start nothing new; what waits for a server ends without being done."""
        self._stopping.set()

    async def finish(self, *, timeout_s: float) -> None:
        """Wait for the tasks; those that take longer are cancelled."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=timeout_s)
            for task in late:
                task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self.tasks.discard(task)
            self.waiting.pop(task, None)
            if not task.cancelled():
                task.exception()  # retrieved, or asyncio would log the error of a record that is not done

        task.add_done_callback(ended)
        return task

    async def _until_done(self, piece: Piece) -> None:
        """Handle a piece, or its halves, until all its records are done. While a server is away they wait.

        What is taken away meanwhile is left to its new worker. Raises the error for which the rest waits when the app
        drains: it is not done, and Kafka delivers it again.
        """
        for wait_s in _growing_waits_s():
            piece = piece.held()
            if not piece.parts:
                return
            failure = await self._try(piece)
            if failure is None:
                self._note_done(piece)
                return
            away = self._errors.is_away(failure)
            if not away and not piece.is_single:
                for half in piece.halves():
                    await self._until_done(half)
                return
            self._note_waiting(piece.parts[0].records[0], failure, away=away)
            if self._stopping.is_set():
                raise failure
            await self._wait(piece, failure, wait_s)

    async def _wait(self, piece: Piece, failure: Exception, wait_s: float) -> None:  # noqa: ARG002
        """Wait before the next try."""
        await self._sleep(wait_s)

    async def _try(self, piece: Piece) -> Exception | None:
        """Handle a piece; a single record with errors that nobody expected is given up. None, or what went wrong."""
        failure = piece.unordered
        if failure is None:
            failure = await self._try_to_handle(piece)
            if failure is None or not piece.is_single or self._errors.is_away(failure):
                return failure
        return await _error_of(partial(self._errors.give_up, piece.records[0], failure, UNEXPECTED_TRIES))

    async def _try_to_handle(self, piece: Piece) -> Exception | None:
        """Handle records, a single one a few times while it raises what nobody expected. None, or the last error."""
        failure = None
        records = piece.records
        for number in range(UNEXPECTED_TRIES if piece.is_single else 1):
            if number:
                await self._sleep(random.uniform(*_UNEXPECTED_WAIT_S))  # noqa: S311
            failure = await _error_of(partial(self._handle, records))
            if failure is None or self._errors.is_away(failure):
                return failure
        if piece.is_single:
            _log_unexpected(records[0], failure)
        return failure

    def _note_done(self, piece: Piece) -> None:
        self.waiting.pop(_this_task(), None)
        for batch, records in piece.parts:
            batch.finish(records)
            self._on_done(records)

    def _note_waiting(self, record: ConsumerRecord, error: Exception, *, away: bool) -> None:
        if away:
            self.waiting[_this_task()] = error
            self._on_away(error)
        else:  # it could not even be given up
            self.waiting.pop(_this_task(), None)
            log.error("record.stuck", **_place(record), error=repr(error))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


class RecordsInHand(InHand):
    """A task for each record. Up to `size` of them have a place, and are handled side by side.

    A task that waits for the one before of its key, or for a server that others do not need, steps aside: it gives its
    place to others until it goes on. While what stands aside takes a lot of memory, the stream is not read further.
    """

    def __init__(self, handler: RecordHandler, *, size: int, **options: Any) -> None:
        super().__init__(handler, size=size, **options)
        self._handler = handler
        self._places = asyncio.Semaphore(size)
        self._aside: dict[asyncio.Task[None], int] = {}
        """The tasks without a place, each with the bytes that it takes."""
        self._aside_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._last: dict[Hashable, asyncio.Task[None]] = {}

    async def run(self, stream: Any) -> None:
        """Take fetches from the stream until it ends."""
        async for fetch in stream:
            for batch in fetch.batches:
                await self._take(batch)

    async def _take(self, batch: Batch) -> None:
        for record in batch.records:
            key, unordered = self._order(record)
            await self._has_room.wait()  # first, or this would keep a place from what comes back
            await self._places.acquire()
            if batch.revoked or self._stopping.is_set():
                self._places.release()
                break
            self._start_piece(key, Piece((Part(batch, (record,)),), unordered))
        batch.records = ()  # the tasks have them, each its own

    def _order(self, record: ConsumerRecord) -> tuple[Hashable | None, Exception | None]:
        """The key of a record, or the error of the handler's `order`."""
        failure = None
        for _ in range(UNEXPECTED_TRIES):
            try:
                return self._handler.order(record), None
            except Exception as error:  # noqa: BLE001 - whatever it is, its record is given up and the others go on
                failure = error
        _log_unexpected(record, failure)
        return None, failure

    def _start_piece(self, key: Hashable | None, piece: Piece) -> None:
        task = self._start(self._work(piece, self._last.get(key)))
        if key is not None:
            self._last[key] = task

        def ended(task: asyncio.Task[None]) -> None:
            if not self._come_back(task):
                self._places.release()
            if self._last.get(key) is task:
                del self._last[key]

        task.add_done_callback(ended)

    async def _work(self, piece: Piece, before: asyncio.Task[None] | None) -> None:
        if before:
            if not before.done():
                await self._step_aside(asyncio.wait([before]), piece)
            if self._stopping.is_set() and _ended_undone(before):
                # The record before comes again after the restart. It would find the answer to this later one, and
                # count as answered: its failure would get no dead letter.
                raise LeftAlone
        with traces.processing(piece.records[0]):
            await self._until_done(piece)

    async def _handle(self, records: Sequence[ConsumerRecord]) -> None:
        await self._handler.handle(records[0])

    async def _wait(self, piece: Piece, failure: Exception, wait_s: float) -> None:
        """Wait before the next try; aside, where others do not need the server.

        Raises the error when the app drains: a last try of each that stands aside would take long.
        """
        if not self._handler.is_away_for_some(failure):
            await self._sleep(wait_s)
            return
        paced_s = len(self._aside) / _ASIDE_TRIES_PER_S
        await self._step_aside(self._sleep(max(wait_s, paced_s)), piece)
        if self._stopping.is_set():
            raise failure

    async def _step_aside(self, wait: Awaitable[object], piece: Piece) -> None:
        """Wait, and give the place to others meanwhile."""
        task = _this_task()
        self._aside[task] = _ASIDE_TASK_BYTES + sum(record.serialized_value_size for record in piece.records)
        self._note_aside(self._aside[task])
        self._places.release()
        await wait
        await self._places.acquire()
        self._come_back(task)

    def _come_back(self, task: asyncio.Task[None]) -> bool:
        """Note that a task does not stand aside any more; returns whether it did."""
        size = self._aside.pop(task, None)
        self._note_aside(-(size or 0))
        return size is not None

    def _note_aside(self, more_bytes: int) -> None:
        self._aside_bytes += more_bytes
        if self._aside_bytes < _ASIDE_BYTES:
            self._has_room.set()
        else:
            self._has_room.clear()


class BatchesInHand(InHand):
    """A task for each piece: batches that wait, of as many partitions as make enough records.

    The batches of a partition follow each other. The consumer bounds how many wait.

    Args:
        records: the most of a piece, where a single batch does not have more.
    """

    def __init__(self, handler: BatchHandler, *, records: int, **options: Any) -> None:
        super().__init__(handler, **options)
        self._handler = handler
        self._records = records
        self._queue: list[Batch] = []
        self._worked: set[TP] = set()

    async def run(self, stream: Any) -> None:
        """Take fetches from the stream until it ends."""
        async for fetch in stream:
            self._queue += fetch.batches
            self._start_pieces()

    def _start_pieces(self) -> None:
        """Start what waits and may be started."""
        while len(self.tasks) < self._size and not self._stopping.is_set() and (parts := self._take()):
            tps = {part.batch.tp for part in parts}
            self._worked |= tps

            def ended(_: asyncio.Task[None], tps: set[TP] = tps) -> None:
                self._worked -= tps
                self._start_pieces()

            self._start(self._work(Piece(parts))).add_done_callback(ended)

    async def _work(self, piece: Piece) -> None:
        with traces.processing_batch(piece.records):
            await self._until_done(piece)

    def _take(self) -> list[Part]:
        """What waits of partitions that are not worked on, as much as fits into a piece.

        First all of the partition that has waited longest, then all of the next one, until it is enough. The more
        records of a partition are handled together, the more of them share a key, so a handler that lags becomes
        faster. Of records in the order in which they came, no more would share a key however many wait.
        """
        waiting = dict[TP, list[Batch]]()
        for batch in self._queue:
            if batch.tp not in self._worked and not batch.revoked:
                waiting.setdefault(batch.tp, []).append(batch)
        parts, count = list[Part](), 0
        for batches in waiting.values():
            if count >= _ENOUGH_RECORDS:
                break
            for batch in batches:
                if parts and count + len(batch.records) > self._records:
                    break  # what follows of its partition does not overtake it
                parts.append(Part(batch, batch.records))
                count += len(batch.records)
                batch.records = ()  # the piece has them
        self._queue = [batch for batch in self._queue if batch.records and not batch.revoked]
        return parts

    async def _handle(self, records: Sequence[ConsumerRecord]) -> None:
        await self._handler.handle_batch(records)


def _ended_undone(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


async def _error_of(work: Callable[[], Awaitable[None]]) -> Exception | None:
    """What the work raises; None where it ends well. What ends a handler on purpose is raised."""
    try:
        await work()
    except BaseException as error:
        if isinstance(error, _MEANT) or (isinstance(error, asyncio.CancelledError) and _this_task().cancelling()):
            raise
        return error if isinstance(error, Exception) else _as_exception(error)
    return None


def _growing_waits_s() -> Iterator[float]:
    wait_s = _AWAY_WAIT_S
    while True:
        yield min(wait_s + random.random(), _LONGEST_AWAY_WAIT_S)  # noqa: S311
        wait_s = min(2 * wait_s, _LONGEST_AWAY_WAIT_S)


def _this_task() -> asyncio.Task[None]:
    return cast("asyncio.Task[None]", asyncio.current_task())


def _as_exception(error: BaseException) -> UnexpectedBaseException:
    unexpected = UnexpectedBaseException(repr(error))
    unexpected.__cause__ = error
    return unexpected


def _log_unexpected(record: ConsumerRecord, error: Exception | None) -> None:
    log.error("record.unexpected_error", **_place(record), exc_info=error)


def _place(record: ConsumerRecord) -> dict[str, Any]:
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
