from types import SimpleNamespace

from kafka.structs import TopicPartition

from stream.commands.rewind import Move, plan

SINCE_MS = 5000
NONE_SINCE = (-1, -1)


class Admin:
    """For each partition: the committed offset (-1: none), the first that is left, and the first of the time."""

    def __init__(self, *partitions: tuple[int, int, tuple[int, int]]) -> None:
        self.partitions = {TopicPartition("uploads", number): given for number, given in enumerate(partitions)}

    def list_group_offsets(self, asked: dict) -> dict:
        ((group, places),) = asked.items()
        return {group: {place: SimpleNamespace(offset=self.partitions[place][0]) for place in places}}

    def list_partition_offsets(self, asked: dict) -> dict:
        def answer(place: TopicPartition, spec: object) -> SimpleNamespace:
            _, start, (offset, timestamp) = self.partitions[place]
            return (
                SimpleNamespace(offset=offset, timestamp=timestamp)
                if spec == SINCE_MS
                else SimpleNamespace(offset=start)
            )

        return {place: answer(place, spec) for place, spec in asked.items()}


def moves(*partitions: tuple[int, int, tuple[int, int]]) -> list[Move]:
    admin = Admin(*partitions)
    return plan(admin, "group", list(admin.partitions), since_ms=SINCE_MS)


def test_a_partition_goes_back_to_the_first_upload_of_the_time() -> None:
    assert moves((10, 0, (4, 6000))) == [Move(0, 10, 4, None)]


def test_no_partition_goes_forward() -> None:
    assert moves((10, 0, (12, 6000)), (10, 0, NONE_SINCE)) == [Move(0, 10, 10, None), Move(1, 10, 10, None)]


def test_where_retention_may_have_dropped_a_part_of_the_time_it_is_told_from_when_on_there_is_something() -> None:
    assert moves((10, 4, (4, 6000))) == [Move(0, 10, 4, 6000)]
    assert moves((10, 10, NONE_SINCE)) == [Move(0, 10, 10, 0)]
    assert moves((10, 3, (4, 6000))) == [Move(0, 10, 4, None)]


def test_partitions_without_a_committed_offset_are_left_out() -> None:
    assert moves((-1, 0, (0, 6000)), (1, 0, (0, 6000))) == [Move(1, 1, 0, None)]
    assert moves((-1, 0, (0, 6000))) == []
