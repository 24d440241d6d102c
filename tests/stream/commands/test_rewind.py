from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.admin import OffsetSpec
from kafka.structs import TopicPartition

from stream.commands.rewind import Move, plan

SINCE_MS = 5000


class Admin:
    """For each partition: the committed offset (-1: none), the first offset that is left, and the records' times."""

    def __init__(self, *partitions: tuple[int, int, list[int]]) -> None:
        self.partitions = {TopicPartition("uploads", number): given for number, given in enumerate(partitions)}

    def list_group_offsets(self, asked: dict) -> dict:
        ((group, places),) = asked.items()
        return {group: {place: SimpleNamespace(offset=self.partitions[place][0]) for place in places}}

    def list_partition_offsets(self, asked: dict) -> dict:
        def answer(place: TopicPartition, spec: object) -> SimpleNamespace:
            _, start, times = self.partitions[place]
            if spec is OffsetSpec.EARLIEST:
                return SimpleNamespace(offset=start)
            records = ((start + number, time) for number, time in enumerate(times))
            offset, timestamp = next((record for record in records if record[1] >= spec), (-1, -1))
            return SimpleNamespace(offset=offset, timestamp=timestamp)

        return {place: answer(place, spec) for place, spec in asked.items()}


def moves(*partitions: tuple[int, int, list[int]], credible_ms: int = 0) -> list[Move]:
    admin = Admin(*partitions)
    return plan(admin, "group", list(admin.partitions), since_ms=SINCE_MS, credible_ms=credible_ms)


OLD = [1000, 2000, 3000, 4000]  # offsets 0 to 3


def test_a_partition_goes_back_to_the_first_upload_of_the_time() -> None:
    assert moves((10, 0, [*OLD, *range(6000, 6006)])) == [Move(0, 10, 4, False, None)]
    assert moves((10, 0, list(range(6000, 6010)))) == [Move(0, 10, 0, False, None)]


def test_no_partition_goes_forward() -> None:
    ahead, none_since = (10, 0, [*range(4000, 4012), 6000]), (10, 0, list(range(4000, 4010)))
    assert moves(ahead, none_since) == [Move(0, 10, 10, False, None), Move(1, 10, 10, False, None)]


def test_where_retention_may_have_dropped_a_part_of_the_time_it_is_told_from_when_on_there_is_something() -> None:
    assert moves((10, 4, list(range(6000, 6006)))) == [Move(0, 10, 4, False, 6000)]
    assert moves((10, 10, [])) == [Move(0, 10, 10, False, 0)]
    assert moves((10, 3, [4000, *range(6000, 6006)])) == [Move(0, 10, 4, False, None)]


def test_partitions_without_a_committed_offset_are_left_out() -> None:
    assert moves((-1, 0, [6000]), (1, 0, [6000])) == [Move(1, 1, 0, False, None)]
    assert moves((-1, 0, [6000])) == []


@pytest.mark.parametrize("odd", [7, 1500, 0, -1])
def test_uploads_that_claim_to_be_older_than_those_before_them_are_taken_along(odd: int) -> None:
    assert moves((7, 0, [*OLD, odd, odd, odd])) == [Move(0, 7, 4, True, None)]
    assert moves((9, 0, [*OLD, odd, odd, 6000, odd, 6001])) == [Move(0, 9, 4, True, None)]


def test_uploads_out_of_order_before_one_that_is_surely_older_stay_where_they_are() -> None:
    assert moves((7, 0, [1000, 7, 7, 2000, 6000, 6001, 6002])) == [Move(0, 7, 4, False, None)]


def test_where_no_time_can_be_right_a_partition_goes_back_to_the_first_upload_that_is_left() -> None:
    assert moves((7, 2, [1000, 30, 700, 20, 5]), credible_ms=2000) == [Move(0, 7, 2, True, None)]
    assert moves((3, 0, [-1, -1, -1])) == [Move(0, 3, 0, True, None)]


# When a record is appended, and what it claims: an older time, or (None) that one.
appended = st.lists(st.tuples(st.integers(1000, 9000), st.integers(-1, 900) | st.none()), min_size=1, max_size=30)


@given(appended, st.integers(0, 30))
def test_no_upload_of_the_time_is_left_out_whatever_some_of_them_claim(
    records: list[tuple[int, int | None]], held: int
) -> None:
    records.sort(key=lambda record: record[0])
    held = min(held, len(records))
    times = [at if claimed is None else claimed for at, claimed in records]
    (move,) = moves((held, 0, times), credible_ms=1000)
    of_the_time = [offset for offset, (at, _) in enumerate(records) if at >= SINCE_MS and offset < held]
    assert move.to_offset <= min(of_the_time, default=held)
