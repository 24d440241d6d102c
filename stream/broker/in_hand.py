"""Records in hand: from a fetched batch to records that are done.

What an agent does with records is a handler, of one of two shapes. A RecordHandler gets one record at a time; records
of one key wait for each other, all others are handled side by side. A BatchHandler gets a whole fetched batch;
batches of one partition follow each other, partitions are handled side by side.

    class Counter:  # a BatchHandler, for app.consume_batches(topic, Counter(...), in_hand=8)

        async def handle_batch(self, records: Sequence[ConsumerRecord]) -> None:
            await self._redis.sadd("seen", *(f"{record.partition}/{record.offset}" for record in records))

        def is_away(self, error: BaseException) -> bool:
            return is_redis_away(error)

        async def give_up(self, record: ConsumerRecord, error: Exception, tries: int) -> None:
            await self._publisher.dead_letter(record, Uncountable(str(error)), attempts=tries)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import structlog
from aiokafka.structs import ConsumerRecord

from stream.broker.faust_driver import Batch

log = structlog.get_logger(__name__)

UNEXPECTED_TRIES = 3
"""How often a record is handled that raises errors which nobody expected; then it is given up."""

_UNEXPECTED_WAIT_S = (0.05, 0.5)
_AWAY_WAIT_S, _LONGEST_AWAY_WAIT_S = 0.2, 5.0  # doubles from the one to the other, plus up to a second by chance


class Handler(Protocol):
    """What both shapes of handlers say about errors."""

    def is_away(self, error: BaseException) -> bool:
        """Whether the error says that a server is away; the record then waits for it, however long that takes."""
        ...

    async def give_up(self, record: ConsumerRecord, error: Exception, tries: int) -> None:
        """Leave a record somewhere durable that raised unexpected errors in each of `tries` tries."""
        ...


class RecordHandler(Handler, Protocol):
    """Handles records one at a time. BatchApp.consume takes it."""

    async def handle(self, record: ConsumerRecord) -> None:
        """Return when the effect of the record is durable. It may be called again for the same record."""
        ...

    def order(self, record: ConsumerRecord) -> Hashable | None:
        """Records of one key are handled one after the other, in the order of their offsets; None waits for nobody."""
        ...


class BatchHandler(Handler, Protocol):
    """Handles the records of a fetched batch together. BatchApp.consume_batches takes it."""

    async def handle_batch(self, records: Sequence[ConsumerRecord]) -> None:
        """Return when the effect of all records is durable.

        It may be called again for the same records, and for a part of them: a batch that raises an unexpected error
        is halved until the error is narrowed down to its record.
        """
        ...


class UnexpectedBaseException(Exception):
    """A library raised inside a handler what is no Exception, such as a CancelledError that nobody asked for.

    That is the cause.
    """


class LeftAlone(BaseException):
    """Raised inside a handler that is draining: the record is left to the next worker.

    It is a BaseException so that nothing takes it for an error of the record.
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
    """Up to `size` tasks over all batches, each with one record or one batch in hand.

    Args:
        handler: what to do with the records.
        size: most tasks at a time; the stream is not read further until one of them ends.
        on_away: called with each error that makes a record wait for a server.
        on_done: called with each record that is done.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        size: int,
        on_away: Callable[[BaseException], None],
        on_done: Callable[[ConsumerRecord], None],
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.waiting: dict[asyncio.Task[None], BaseException] = {}
        """The tasks that wait for a server, each with the error that said so."""
        self._errors = handler
        self._on_away = on_away
        self._on_done = on_done
        self._free = asyncio.Semaphore(size)
        self._last: dict[Hashable, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

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
                await self._free.acquire()
                if batch.revoked or self._stopping.is_set():
                    self._free.release()
                    break
                self._start(batch, piece)

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
            self._free.release()
            self.tasks.discard(task)
            self.waiting.pop(task, None)
            if self._last.get(key) is task:
                del self._last[key]
            if not task.cancelled():
                task.exception()  # retrieved, or asyncio would log the error of a record that is not done

        task.add_done_callback(ended)

    async def _work(self, batch: Batch, piece: Piece, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait([before])
            if self._stopping.is_set() and _ended_undone(before):
                # The record before comes again after the restart. It would find the answer to this later one, and
                # count as answered: its failure would get no dead letter.
                raise LeftAlone
        if not batch.revoked:
            await self._until_done(batch, piece.records, piece.unordered)

    async def _until_done(
        self, batch: Batch, records: Sequence[ConsumerRecord], unordered: Exception | None = None
    ) -> None:
        """Handle records until they are done, or given up after a few errors that nobody expected.

        While a server is away they wait, and that does not count as a try. Raises the error for which they wait when
        the partition is taken away or the app drains: they are not done, and Kafka delivers them again. What is
        `unordered` for an error is given up at once for that.
        """
        task = cast("asyncio.Task[None]", asyncio.current_task())
        tries, waits, failure = 0, 0, None
        while True:
            try:
                if hopeless := unordered or (failure if tries == UNEXPECTED_TRIES else None):
                    await self._errors.give_up(records[0], hopeless, UNEXPECTED_TRIES)
                else:
                    await self._handle(records)
                break
            except BaseException as error:
                if isinstance(error, _MEANT) or (isinstance(error, asyncio.CancelledError) and task.cancelling()):
                    raise
                failure = error if isinstance(error, Exception) else _as_exception(error)
            away = self._errors.is_away(failure)
            if not away and len(records) > 1:
                for half in (records[: len(records) // 2], records[len(records) // 2 :]):
                    await self._until_done(batch, half)
                return
            if not away and not unordered and tries < UNEXPECTED_TRIES:
                tries += 1
                if tries < UNEXPECTED_TRIES:
                    await self._sleep(random.uniform(*_UNEXPECTED_WAIT_S))  # noqa: S311
                else:
                    _log_unexpected(records[0], failure)
                continue
            tries = 0  # the server is away, or the record could not even be given up
            self._note_waiting(task, records[0], failure, away=away)
            if batch.revoked or self._stopping.is_set():
                raise failure
            await self._sleep(min(_AWAY_WAIT_S * 2**waits + random.random(), _LONGEST_AWAY_WAIT_S))  # noqa: S311
            waits = min(waits + 1, 10)
        self.waiting.pop(task, None)
        for record in records:
            batch.finish(record)
            self._on_done(record)

    def _note_waiting(self, task: asyncio.Task[None], record: ConsumerRecord, error: Exception, *, away: bool) -> None:
        if away:
            self.waiting[task] = error
            self._on_away(error)
        else:
            self.waiting.pop(task, None)
            log.error("record.stuck", **_place(record), error=repr(error))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


class RecordsInHand(InHand):
    """A task for each record."""

    def __init__(self, handler: RecordHandler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._handler = handler

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

    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        yield Piece(batch.tp, batch.records)

    async def _handle(self, records: Sequence[ConsumerRecord]) -> None:
        await self._handler.handle_batch(records)


def _ended_undone(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


def _as_exception(error: BaseException) -> UnexpectedBaseException:
    unexpected = UnexpectedBaseException(repr(error))
    unexpected.__cause__ = error
    return unexpected


def _log_unexpected(record: ConsumerRecord, error: Exception | None) -> None:
    log.error("record.unexpected_error", **_place(record), exc_info=error)


def _place(record: ConsumerRecord) -> dict[str, Any]:
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
