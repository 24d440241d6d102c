"""Records in hand: from a fetched batch to records that are done.

A record is done when its handler has returned, or has given it up after a few errors that nobody expected. While a
server is away it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import structlog
from aiokafka.structs import ConsumerRecord

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


class UnexpectedBaseException(Exception):
    """A library raised inside a handler what is no Exception, such as a CancelledError that nobody asked for.

    That is the cause.
    """


_MEANT = (LeftAlone, KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a handler on purpose. Anything else that it raises is an error of its record."""


class Piece(NamedTuple):
    """Records that are handled together.

    Attributes:
        key: they wait for the piece before that has the same one; None waits for nobody.
        records: at least one.
        unordered: the error of the handler's `order`, if it raised one; they are given up for it, and not handled.
    """

    key: Hashable | None
    records: Sequence[ConsumerRecord]
    unordered: Exception | None = None


class InHand(ABC):
    """A task for each record, or each batch, in hand. Up to `size` of them have a place, and are handled side by side.

    A task that waits for the one before, or for a server that others do not need, steps aside: it gives its place to
    others until it goes on. While what stands aside takes a lot of memory, the stream is not read further.

    Args:
        handler: what to do with the records.
        size: how many places there are; the stream is not read further until one is free.
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
        self._on_away = on_away
        self._on_done = on_done
        self._places = asyncio.Semaphore(size)
        self._aside: dict[asyncio.Task[None], int] = {}
        """The tasks without a place, each with the bytes that it takes."""
        self._aside_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._last: dict[Hashable, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

    @abstractmethod
    def _is_away_for_some(self, error: BaseException) -> bool:
        """Whether the server that is away is one that others do not need."""

    @abstractmethod
    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        """The records that are handled together."""

    @abstractmethod
    async def _handle(self, records: Sequence[ConsumerRecord]) -> None:
        """Have the handler handle a piece."""

    async def run(self, stream: Any) -> None:
        """Take batches from the stream until it ends."""
        async for batch in stream:
            for piece in self._pieces(batch):
                await self._has_room.wait()  # first, or this would keep a place from what comes back
                await self._places.acquire()
                if batch.revoked or self._stopping.is_set():
                    self._places.release()
                    break
                self._start(batch, piece)
            batch.records = ()  # the tasks have them, each its own

    def stop(self) -> None:
        """Start nothing new; what waits for a server ends without being done."""
        self._stopping.set()

    async def finish(self, *, timeout_s: float) -> None:
        """Wait for the tasks; those that take longer are cancelled."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=timeout_s)
            for task in late:
                task.cancel()

    def _start(self, batch: Batch, piece: Piece) -> None:
        key = piece.key
        task = asyncio.create_task(self._work(batch, piece, self._last.get(key)))
        self.tasks.add(task)
        if key is not None:
            self._last[key] = task

        def ended(task: asyncio.Task[None]) -> None:
            if not self._come_back(task):
                self._places.release()
            self.tasks.discard(task)
            self.waiting.pop(task, None)
            if self._last.get(key) is task:
                del self._last[key]
            if not task.cancelled():
                task.exception()  # retrieved, or asyncio would log the error of a record that is not done

        task.add_done_callback(ended)

    async def _work(self, batch: Batch, piece: Piece, before: asyncio.Task[None] | None) -> None:
        if before:
            if not before.done():
                await self._step_aside(asyncio.wait([before]), piece.records)
            if self._stopping.is_set() and _ended_undone(before):
                # The record before comes again after the restart. It would find the answer to this later one, and
                # count as answered: its failure would get no dead letter.
                raise LeftAlone
        if not batch.revoked:
            await self._until_done(batch, piece)

    async def _until_done(self, batch: Batch, piece: Piece) -> None:
        """Handle a piece, or its halves, until all its records are done. While a server is away they wait.

        Raises the error for which they wait when the partition is taken away or the app drains: they are not done, and
        Kafka delivers them again.
        """
        for wait_s in _growing_waits_s():
            failure = await self._try(piece)
            if failure is None:
                self._note_done(batch, piece.records)
                return
            away = self._errors.is_away(failure)
            if not away and len(piece.records) > 1:
                for half in _halves(piece):
                    await self._until_done(batch, half)
                return
            self._note_waiting(piece.records[0], failure, away=away)
            if batch.revoked or self._stopping.is_set():
                raise failure
            if away and self._is_away_for_some(failure):
                paced_s = len(self._aside) / _ASIDE_TRIES_PER_S
                await self._step_aside(self._sleep(max(wait_s, paced_s)), piece.records)
                if batch.revoked or self._stopping.is_set():  # a last try of each would take long
                    raise failure
            else:
                await self._sleep(wait_s)

    async def _step_aside(self, wait: Awaitable[object], records: Sequence[ConsumerRecord]) -> None:
        """Wait, and give the place to others meanwhile."""
        task = _this_task()
        self._aside[task] = _ASIDE_TASK_BYTES + sum(record.serialized_value_size for record in records)
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

    async def _try(self, piece: Piece) -> Exception | None:
        """Handle a piece; a single record with errors that nobody expected is given up. None, or what went wrong."""
        failure = piece.unordered
        if failure is None:
            failure = await self._try_to_handle(piece.records)
            if failure is None or len(piece.records) > 1 or self._errors.is_away(failure):
                return failure
        return await _error_of(partial(self._errors.give_up, piece.records[0], failure, UNEXPECTED_TRIES))

    async def _try_to_handle(self, records: Sequence[ConsumerRecord]) -> Exception | None:
        """Handle records, a single one a few times while it raises what nobody expected. None, or the last error."""
        failure = None
        tries = UNEXPECTED_TRIES if len(records) == 1 else 1
        for number in range(tries):
            if number:
                await self._sleep(random.uniform(*_UNEXPECTED_WAIT_S))  # noqa: S311
            failure = await _error_of(partial(self._handle, records))
            if failure is None or self._errors.is_away(failure):
                return failure
        if len(records) == 1:
            _log_unexpected(records[0], failure)
        return failure

    def _note_done(self, batch: Batch, records: Sequence[ConsumerRecord]) -> None:
        self.waiting.pop(_this_task(), None)
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
    """A task for each record."""

    def __init__(self, handler: RecordHandler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._handler = handler

    def _is_away_for_some(self, error: BaseException) -> bool:
        return self._handler.is_away_for_some(error)

    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        return map(self._piece, batch.records)

    def _piece(self, record: ConsumerRecord) -> Piece:
        failure = None
        for _ in range(UNEXPECTED_TRIES):
            try:
                return Piece(self._handler.order(record), (record,))
            except Exception as error:  # noqa: BLE001 - whatever it is, its record is given up and the others go on
                failure = error
        _log_unexpected(record, failure)
        return Piece(None, (record,), failure)

    async def _handle(self, records: Sequence[ConsumerRecord]) -> None:
        await self._handler.handle(records[0])


class BatchesInHand(InHand):
    """A task for each batch; the batches of a partition follow each other."""

    def __init__(self, handler: BatchHandler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._handler = handler

    def _is_away_for_some(self, error: BaseException) -> bool:  # noqa: ARG002
        return False

    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        yield Piece(batch.tp, batch.records)

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


def _halves(piece: Piece) -> tuple[Piece, Piece]:
    middle = len(piece.records) // 2
    return piece._replace(records=piece.records[:middle]), piece._replace(records=piece.records[middle:])


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
