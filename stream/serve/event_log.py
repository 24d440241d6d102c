"""The newest changes of a topic, in a ring that any number of readers follow at their own pace.

A reader keeps nothing here: who is too slow finds that the ring has moved on.
"""

from __future__ import annotations

from typing import NamedTuple

from stream.serve.taste import Change


class Entry(NamedTuple):
    """A change, and the record that made it."""

    partition: int
    offset: int
    change: Change


class EventLog:
    """The newest changes that the records of a topic made.

    Attributes:
        begins: of each partition, the offset from which on every change is in the ring.
        ends: of each partition, the offset of the next record.
        end: the number of the next entry; entries are numbered from 0.

    Args:
        size: the most entries that are kept.
    """

    def __init__(self, *, size: int) -> None:
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.end = 0
        self._ring: list[Entry | None] = [None] * size

    @property
    def begin(self) -> int:
        """The number of the oldest entry that is kept."""
        return max(0, self.end - len(self._ring))

    def __getitem__(self, number: int) -> Entry:
        entry = self._ring[number % len(self._ring)]
        if entry is None or not self.begin <= number < self.end:
            raise IndexError(number)
        return entry

    def take(self, partition: int, offset: int, change: Change | None, *, is_old: bool = False) -> None:
        """Note a record, and the change that it made.

        is_old: it was published so long ago that nobody waits for it, and is not kept.
        """
        self.reach(partition, offset + 1)
        if is_old:
            self.begins[partition] = offset + 1
        elif change:
            if (last := self._ring[self.end % len(self._ring)]) is not None:
                self.begins[last.partition] = max(self.begins[last.partition], last.offset + 1)
            self._ring[self.end % len(self._ring)] = Entry(partition, offset, change)
            self.end += 1

    def reach(self, partition: int, offset: int) -> None:
        """Note that all records before an offset were taken. There may be none, after a transaction or compaction."""
        while len(self.ends) <= partition:
            self.begins.append(0)
            self.ends.append(0)
        self.ends[partition] = offset
