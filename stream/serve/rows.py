"""Row numbers for ids, so that what is known of each id can stand in arrays."""

from __future__ import annotations

from collections import deque

RESTING = 4096
"""Rows that are given up rest until so many others are given up: a search that runs meanwhile may still find them."""


class Rows:
    """Gives each id a row number, from 0 up; numbers that were given up are given out again.

    rows = Rows()
    rows.add("t1")    # 0
    rows.row("t1")    # 0
    rows.id(0)        # "t1"
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str | None] = []
        self._resting: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def size(self) -> int:
        """One more than the greatest row number that was ever given."""
        return len(self._ids)

    def add(self, name: str) -> int:
        """The row of an id, a new one where it has none."""
        if (row := self._rows.get(name)) is not None:
            return row
        if len(self._resting) > RESTING:
            row = self._resting.popleft()
            self._ids[row] = name
        else:
            row = len(self._ids)
            self._ids.append(name)
        self._rows[name] = row
        return row

    def row(self, name: str) -> int | None:
        """The row of an id, or None."""
        return self._rows.get(name)

    def id(self, row: int) -> str | None:
        """The id of a row, or None where it was given up."""
        return self._ids[row]

    def drop(self, name: str) -> int | None:
        """Give up the row of an id; returns it, or None where there is none."""
        if (row := self._rows.pop(name, None)) is not None:
            self._ids[row] = None
            self._resting.append(row)
        return row
