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


def batch_of(*values: int, partition: int = 0, offset: int = 0) -> Batch:
    records = [SimpleNamespace(offset=at, value=value, timestamp=0, timestamp_type=0, topic="t", partition=partition,
                               serialized_value_size=1)
               for at, value in enumerate(values, offset)]  # fmt: skip
    return Batch(TP("t", partition), records)


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


class Gate(Handler):
    """Its calls end one by one, when the test says so."""

    def __init__(self, errors: dict[int, list[BaseException | None]] | None = None) -> None:
        super().__init__(errors)
        self.opened = asyncio.Semaphore(0)

    async def handle_batch(self, records: Sequence) -> None:
        values = tuple(record.value for record in records)
        self.calls.append(values)
        await self.opened.acquire()
        for value in values:
            self._raise(value)
        self.done += values


def fetches(*all_batches: list[Batch]) -> AsyncIterator[Fetch]:
    async def stream() -> AsyncIterator[Fetch]:
        for batches in all_batches:
            yield Fetch(batches, 1)

    return stream()


async def test_what_waits_is_handled_together_and_a_partition_that_is_worked_on_waits() -> None:
    handler = Gate()
    work = joined(handler, size=2, on_away=print, on_done=lambda records: None)
    first = [batch_of(1, 2, partition=0), batch_of(3, partition=1)]
    second = [batch_of(4, partition=0, offset=2), batch_of(5, partition=2)]
    third = [batch_of(6, partition=1, offset=1), batch_of(7, partition=0, offset=3), batch_of(8, partition=3)]
    await work.run(fetches(first, second, third))
    await until(lambda: len(handler.calls) == 2)
    assert handler.calls == [(1, 2, 3), (5,)]
    handler.opened.release()
    await until(lambda: len(handler.calls) == 3)
    assert handler.calls[2] == (4, 7, 6, 8)  # all of a partition, then the next one
    for _ in range(2):
        handler.opened.release()
    await work.finish(timeout_s=10)
    assert all(batch.done for batch in (*first, *second, *third))


async def test_a_piece_is_bounded_and_only_a_batch_that_is_larger_by_itself_exceeds_that() -> None:
    handler = Handler()
    batches = [batch_of(*range(10 * number, 10 * number + size), partition=number)
               for number, size in enumerate([3, 2, 1, 7, 4])]  # fmt: skip
    work = joined(handler, records=5, size=1, on_away=print, on_done=lambda records: None)
    await work.run(fetches(batches))
    await until(lambda: all(batch.done for batch in batches))
    assert [sorted({value // 10 for value in call}) for call in handler.calls] == [[0, 1], [2, 4], [3]]


async def test_a_handler_that_lags_gets_all_of_a_partition_before_it_gets_any_of_the_next_one() -> None:
    handler = Gate()
    work = joined(handler, records=6, size=1, on_away=print, on_done=lambda records: None)
    rounds = [[batch_of(10 * number + at, partition=number, offset=at) for number in (1, 2)] for at in range(5)]
    await work.run(fetches([batch_of(0)], *rounds))
    for _ in range(4):
        handler.opened.release()
    await work.finish(timeout_s=10)
    await until(lambda: all(batch.done for batches in rounds for batch in batches))
    assert handler.calls == [(0,), (10, 11, 12, 13, 14, 20), (21, 22, 23, 24)]


async def test_a_piece_that_is_large_enough_takes_no_further_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_hand, "_ENOUGH_RECORDS", 3)
    handler = Handler()
    work = joined(handler, size=1, on_away=print, on_done=lambda records: None)
    rounds = [[batch_of(10 * number + at, partition=number, offset=at) for number in (1, 2, 3, 4)] for at in range(2)]
    await work.run(fetches([batch_of(0)], *rounds))
    await until(lambda: all(batch.done for batches in rounds for batch in batches))
    assert handler.calls == [(0,), (10, 11, 20, 21), (30, 31, 40, 41)]


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=5), max_size=6), st.integers(1, 9))
def test_records_of_a_partition_keep_their_order_whatever_is_joined(fetched: list, most: int) -> None:
    ends = Counter[int]()
    all_batches = []
    for sizes in fetched:
        batches = []
        for partition, size in dict(sizes).items():
            values = range(1000 * partition + ends[partition], 1000 * partition + ends[partition] + size)
            batches.append(batch_of(*values, partition=partition, offset=ends[partition]))
            ends[partition] += size
        if batches:
            all_batches.append(batches)
    handler = Handler()

    async def handle() -> None:
        work = joined(handler, records=most, size=2, on_away=print, on_done=lambda records: None)
        await work.run(fetches(*all_batches))
        await until(lambda: not work.tasks)

    asyncio.run(handle())
    for partition, end in ends.items():
        of_partition = [value % 1000 for value in handler.done if value // 1000 == partition]
        assert of_partition == list(range(end))
    assert all(batch.done for batches in all_batches for batch in batches)


async def test_an_unexpected_error_of_one_partition_undoes_no_record_of_the_others() -> None:
    handler = Handler({11: [KeyError("ours")]})
    batches = [batch_of(*range(10 * number, 10 * number + 4), partition=number) for number in range(4)]
    done: list[int] = []
    work = joined(handler, size=1, on_away=print,
                  on_done=lambda records: done.extend(record.value for record in records))  # fmt: skip
    await work.run(fetches(batches))
    await work.finish(timeout_s=10)
    assert [value for value, _, _ in handler.given_up] == [11]
    assert sorted(handler.done) == sorted({*range(4), *range(10, 14), *range(20, 24), *range(30, 34)} - {11})
    assert sorted(done) == sorted([*handler.done, 11])
    assert [batch.committable for batch in batches] == [4] * 4


async def test_while_joined_records_wait_those_of_a_partition_that_is_taken_away_are_left_out() -> None:
    away = AwayError()
    handler = Handler({1: [away, away, None]})
    kept, taken = batch_of(1, 2, partition=0), batch_of(3, 4, partition=1)
    work = joined(handler, size=1, on_away=lambda _: setattr(taken, "revoked", True), on_done=lambda records: None)
    await work.run(fetches([kept, taken]))
    await work.finish(timeout_s=10)
    assert handler.calls == [(1, 2, 3, 4), (1, 2), (1, 2)]
    assert kept.done
    assert (taken.done, taken.committable) == (False, 0)


async def test_a_batch_that_is_taken_away_before_it_is_handled_never_is() -> None:
    handler = Gate()
    work = joined(handler, size=1, on_away=print, on_done=lambda records: None)
    first, taken, after = batch_of(1), batch_of(2, partition=1), batch_of(3, partition=2)
    await work.run(fetches([first], [taken], [after]))
    await until(lambda: handler.calls)
    taken.revoked = True
    for _ in range(2):
        handler.opened.release()
    await until(lambda: after.done)
    assert handler.calls == [(1,), (3,)]
    assert not taken.done


async def test_after_a_partition_of_a_piece_is_taken_away_a_later_half_of_others_is_still_done() -> None:
    class Narrowing(Handler):
        async def handle_batch(self, records: Sequence) -> None:
            if len(self.calls) == 1:
                batches[0].revoked = True  # while the first half, which is all of it, is handled
            await super().handle_batch(records)

    batches = [batch_of(1, 2, partition=0), batch_of(3, 4, partition=1)]
    handler = Narrowing({1: [KeyError("ours"), AwayError()]})
    work = joined(handler, size=1, on_away=print, on_done=lambda records: None)
    await work.run(fetches(batches))
    await work.finish(timeout_s=10)
    assert handler.calls == [(1, 2, 3, 4), (1, 2), (3, 4)]
    assert not batches[0].done
    assert batches[1].done


async def test_a_stop_starts_nothing_that_waits_and_finishes_what_is_in_hand() -> None:
    handler = Gate()
    first, second = batch_of(1, partition=0), batch_of(2, partition=0, offset=1)
    work = joined(handler, size=2, on_away=print, on_done=lambda records: None)
    await work.run(fetches([first], [second]))
    await until(lambda: handler.calls)
    work.stop()
    for _ in range(2):
        handler.opened.release()
    await work.finish(timeout_s=10)
    assert handler.calls == [(1,)]
    assert (first.committable, second.committable) == (1, 1)
    assert (first.done, second.done) == (True, False)


async def test_a_stop_ends_joined_records_that_wait_for_a_server_undone() -> None:
    handler = Handler({3: [AwayError()]})
    batches = [batch_of(1, 2, partition=0), batch_of(3, partition=1)]
    work = joined(handler, size=1, on_away=lambda _: work.stop(), on_done=lambda records: None)
    await work.run(fetches(batches))
    await work.finish(timeout_s=10)
    assert not any(batch.done for batch in batches)
    assert [batch.committable for batch in batches] == [0, 0]
