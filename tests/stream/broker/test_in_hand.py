"""Records in hand: what is done, waits, is narrowed down or given up; without a broker."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stream.broker import in_hand
from stream.broker.batch import Batch, Fetch
from stream.broker.handlers import LeftAlone
from stream.broker.in_hand import UNEXPECTED_TRIES, BatchesInHand, RecordsInHand


class AwayError(Exception):
    """Stands for a server that is away."""


class AwayForSomeError(AwayError):
    """Stands for a server that is away and that other records do not need."""


class Handler:
    """Both shapes; raises for a value what `errors` has for it, the last one for ever."""

    def __init__(self, errors: dict[int, list[BaseException | None]] | None = None) -> None:
        self.errors = errors or {}
        self.calls: list[tuple[int, ...]] = []
        self.done: list[int] = []
        self.given_up: list[tuple[int, str, int]] = []
        self.key: str | None = None

    def is_away(self, error: BaseException) -> bool:
        return isinstance(error, AwayError)

    def is_away_for_some(self, error: BaseException) -> bool:
        return isinstance(error, AwayForSomeError)

    def order(self, record) -> str | None:
        return self.key

    async def give_up(self, record, error: Exception, tries: int) -> None:
        self._raise(-record.value)
        self.given_up.append((record.value, repr(error), tries))

    async def handle(self, record) -> None:
        await self.handle_batch((record,))

    async def handle_batch(self, records: Sequence) -> None:
        self.calls.append(tuple(record.value for record in records))
        for record in records:
            self._raise(record.value)
        self.done += [record.value for record in records]

    def _raise(self, value: int) -> None:
        errors = self.errors.get(value, [None])
        if error := errors.pop(0) if len(errors) > 1 else errors[0]:
            raise error


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_hand, "_UNEXPECTED_WAIT_S", (0.0, 0.0))
    monkeypatch.setattr(in_hand, "_AWAY_WAIT_S", 0.0)
    monkeypatch.setattr(in_hand, "_LONGEST_AWAY_WAIT_S", 0.001)


@pytest.fixture(autouse=True)
def _no_tracebacks_on_the_terminal() -> Iterator[None]:
    with capture_logs():
        yield


def batch_of(*values: int) -> Batch:
    records = [SimpleNamespace(offset=at, value=value, timestamp=0, timestamp_type=0, topic="t", partition=0,
                               serialized_value_size=1)
               for at, value in enumerate(values)]  # fmt: skip
    return Batch(TP("t", 0), records)


async def stream(*batches: Batch) -> AsyncIterator[Fetch]:
    for batch in batches:
        yield Fetch([batch], 1)


def joined(handler: Handler, *, records: int = 100, **options) -> BatchesInHand:
    return BatchesInHand(handler, records=records, **options)


async def handled(kind: Callable, handler: Handler, *batches: Batch, waits: list | None = None) -> list[int]:
    """Handle batches to their end; the values in the order in which they were done."""
    done: list[int] = []
    work = kind(
        handler,
        size=4,
        on_away=[].append if waits is None else waits.append,
        on_done=lambda records: done.extend(record.value for record in records),
    )
    await work.run(stream(*batches))
    await work.finish(timeout_s=10)
    return done


BOTH = pytest.mark.parametrize("kind", [RecordsInHand, joined])


@BOTH
async def test_all_records_of_all_batches_are_done(kind) -> None:
    first, second = batch_of(1, 2, 3), batch_of(4, 5)
    assert sorted(await handled(kind, Handler(), first, second)) == [1, 2, 3, 4, 5]
    assert first.done
    assert second.committable == 2


@BOTH
async def test_time_away_counts_as_no_try(kind) -> None:
    fault, away, waits = KeyError("ours"), AwayError("redis"), []
    handler = Handler({2: [fault, away, fault, away, fault, None]})
    assert sorted(await handled(kind, handler, batch_of(1, 2), waits=waits)) == [1, 2]
    assert waits == [away, away]
    assert handler.given_up == []


@BOTH
async def test_a_record_that_cannot_even_be_given_up_keeps_its_place_and_is_tried_anew(kind) -> None:
    handler = Handler({1: [KeyError("ours")], -1: [OSError("disk"), AwayError(), None]})
    batch = batch_of(1, 2)
    await handled(kind, handler, batch)
    assert handler.given_up == [(1, "KeyError('ours')", UNEXPECTED_TRIES)]
    assert batch.done
    assert handler.calls.count((1,)) == 3 * UNEXPECTED_TRIES


@BOTH
async def test_what_waits_when_its_partition_is_taken_away_is_not_done(kind) -> None:
    batch = batch_of(1)
    handler = Handler({1: [AwayError()]})

    class Waits(list):
        def append(self, error: BaseException) -> None:
            super().append(error)
            batch.revoked = len(self) == 3

    waits = Waits()
    assert await handled(kind, handler, batch, waits=waits) == []
    assert len(waits) == 3
    assert not batch.done


async def test_what_a_draining_handler_leaves_alone_is_neither_done_nor_given_up() -> None:
    batch, handler = batch_of(1, 2), Handler({1: [LeftAlone()]})
    assert await handled(RecordsInHand, handler, batch) == [2]
    assert (batch.committable, handler.given_up) == (0, [])


async def test_at_a_stop_no_record_overtakes_one_of_its_key_that_is_not_done() -> None:
    batch, handler = batch_of(1, 2, 3), Handler({1: [AwayError()]})
    handler.key = "one key for all"
    work = RecordsInHand(handler, size=4, on_away=lambda _: work.stop(), on_done=handler.done.extend)
    await work.run(stream(batch))
    await work.finish(timeout_s=10)
    assert (handler.done, batch.committable) == ([], 0)
    assert set(handler.calls) == {(1,)}


class Server:
    """Away for the records of even values until it is told otherwise."""

    def __init__(self, handler: Handler, *values: int) -> None:
        self.errors = [AwayForSomeError()]
        handler.errors |= {value: self.errors for value in values if value % 2 == 0}

    def come_back(self) -> None:
        self.errors[:] = [None]


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_records_that_wait_for_a_server_that_others_do_not_need_give_their_places_to_them() -> None:
    handler, batches = Handler(), [batch_of(*range(number, number + 20)) for number in range(0, 100, 20)]
    server = Server(handler, *range(100))
    work = RecordsInHand(handler, size=2, on_away=print, on_done=print)
    await asyncio.wait_for(work.run(stream(*batches)), 10)
    await until(lambda: len(handler.done) == 50)
    assert handler.done == list(range(1, 100, 2))
    assert [batch.committable for batch in batches] == [0] * 5
    server.come_back()
    await work.finish(timeout_s=10)
    assert sorted(handler.done) == list(range(100))
    assert all(batch.done for batch in batches)


async def test_what_stands_aside_is_bounded_and_nothing_is_read_beyond_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_hand, "_ASIDE_BYTES", 5 * in_hand._ASIDE_TASK_BYTES)
    handler, batch = Handler(), batch_of(*range(0, 40, 2))
    server = Server(handler, *range(40))
    work = RecordsInHand(handler, size=1, on_away=print, on_done=print)
    reading = asyncio.create_task(work.run(stream(batch)))
    await until(lambda: len(handler.calls) > 100)
    assert len(work.tasks) <= 5 + 1  # one has the place
    assert not reading.done()
    server.come_back()
    await asyncio.wait_for(reading, 10)
    await work.finish(timeout_s=10)
    assert batch.done


async def test_records_behind_one_of_their_key_that_waits_hold_up_nobody_and_keep_their_order() -> None:
    handler = Handler()
    handler.order = lambda record: "even" if record.value % 2 == 0 else None
    server = Server(handler, 0)
    batch = batch_of(*range(40))
    work = RecordsInHand(handler, size=1, on_away=print, on_done=print)
    await asyncio.wait_for(work.run(stream(batch)), 10)
    await until(lambda: len(handler.done) == 20)
    assert handler.done == list(range(1, 40, 2))
    server.come_back()
    await work.finish(timeout_s=10)
    assert handler.done[20:] == list(range(0, 40, 2))
    assert batch.done


async def test_a_task_that_is_cancelled_while_it_stands_aside_takes_no_place_with_it() -> None:
    handler, batch = Handler(), batch_of(0, 2, 4)
    Server(handler, 0, 2, 4)
    work = RecordsInHand(handler, size=1, on_away=print, on_done=print)
    await work.run(stream(batch))
    await work.finish(timeout_s=0.01)
    await until(lambda: not work.tasks)
    assert work._places._value == 1
    assert work._aside_bytes == 0


@given(faults=st.sets(st.integers(1, 40)), count=st.integers(1, 40))
def test_a_batch_is_narrowed_down_to_the_records_that_raise_and_no_other_is_given_up(
    faults: set[int], count: int
) -> None:
    batch, handler = batch_of(*range(1, count + 1)), Handler({value: [KeyError(value)] for value in faults})
    asyncio.run(handled(joined, handler, batch))
    expected = sorted(faults & set(range(1, count + 1)))
    assert [value for value, _, _ in handler.given_up] == expected
    assert sorted(handler.done) == sorted(set(range(1, count + 1)) - faults)
    assert max(Counter(handler.calls).values()) <= UNEXPECTED_TRIES
    assert len(handler.calls) <= 1 + len(expected) * (2 * count.bit_length() + UNEXPECTED_TRIES)
    assert batch.done


class PanicError(BaseException):
    """What a library raises that is no Exception, as the panics of those in Rust are."""


@pytest.mark.parametrize("error", [asyncio.CancelledError, PanicError, BaseExceptionGroup("", [PanicError()])])
async def test_what_a_library_raises_that_is_no_exception_is_an_unexpected_error(error) -> None:
    handler = Handler({1: [error], 2: [error, None]})
    batch = batch_of(0, 1, 2)
    with capture_logs() as logs:
        assert sorted(await handled(RecordsInHand, handler, batch)) == [0, 1, 2]
    assert batch.done
    ((value, said, tries),) = handler.given_up
    assert (value, tries) == (1, UNEXPECTED_TRIES)
    assert "UnexpectedBaseException" in said
    assert sorted(handler.done) == [0, 2]
    assert [line["offset"] for line in logs if line["event"] == "record.unexpected_error"] == [1]


async def test_a_task_that_is_cancelled_from_outside_ends_without_being_done() -> None:
    class Hangs(Handler):
        async def handle(self, record) -> None:
            await asyncio.Event().wait()

    handler, batch = Hangs(), batch_of(0)
    one = RecordsInHand(handler, size=2, on_away=print, on_done=lambda records: None)
    await one.run(stream(batch))
    await one.finish(timeout_s=0.01)
    await asyncio.wait(one.tasks, timeout=5)
    assert not one.tasks
    assert not batch.done
    assert not handler.given_up


async def test_an_order_that_raises_gives_its_record_up_and_the_others_go_on() -> None:
    class Unordered(Handler):
        def order(self, record) -> str | None:
            if record.value == 1:
                raise ZeroDivisionError
            return "key"

    handler, batch = Unordered({-1: [AwayError(), None]}), batch_of(0, 1, 2)
    assert sorted(await handled(RecordsInHand, handler, *[batch, *(batch_of(1) for _ in range(9))])) == [
        0,
        *[1] * 10,
        2,
    ]
    assert batch.done
    assert handler.given_up == [(1, "ZeroDivisionError()", UNEXPECTED_TRIES)] * 10  # and no place is lost
    assert handler.done == [0, 2]
