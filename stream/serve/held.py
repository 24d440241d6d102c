"""Ids with what is known of each: a vector to be found by, and facts in an array."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import ArrayLike, NDArray

from stream.serve.index import Found, VectorIndex
from stream.serve.rows import Rows

log = structlog.get_logger(__name__)

_NORM_TOLERANCE = 1e-2


class Hit(NamedTuple):
    """A track or a user that a search found.

    Attributes:
        id: track_id or user_id.
        score: dot product of the two embeddings, -1 to 1.
    """

    id: str
    score: float


class Held:
    """Ids with facts in an array, and with vectors in an index that is made when the first one comes.

    Args:
        facts: the fields of a row.
    """

    def __init__(self, facts: np.dtype[Any]) -> None:
        self.rows = Rows()
        self.facts = np.zeros(256, facts)
        self.index: VectorIndex | None = None
        self._waiting: dict[int, tuple[list[float], int]] = {}

    def __len__(self) -> int:
        return len(self.index) if self.index else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the facts and of the index, without the ids."""
        return self.facts.nbytes + (self.index.nbytes if self.index else 0)

    def add(self, name: str) -> int:
        """The row of an id, a new one where it has none."""
        row = self.rows.add(name)
        if row >= len(self.facts):
            self.facts = np.concatenate([self.facts, np.zeros_like(self.facts)])
        return row

    def drop(self, name: str) -> bool:
        """Let an id go; returns whether it was there."""
        row = self.rows.drop(name)
        if row is None:
            return False
        self._waiting.pop(row, None)
        if self.index:
            self.index.remove([row])
        return True

    def before(self, time_ms: int) -> list[str]:
        """The ids whose event_time is before a time."""
        rows = np.flatnonzero(self.facts["event_time"][: self.rows.size] < time_ms)
        return [name for row in rows.tolist() if (name := self.rows.id(row)) is not None]

    def put(self, row: int, vector: list[float] | None, label: int) -> None:
        """Have a row get a vector, or none, at the end of `writing`."""
        if vector is None:
            self._waiting.pop(row, None)
            if self.index:
                self.index.remove([row])
        else:
            self._waiting[row] = vector, label

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The vectors that are put inside of the block are in the index after it, all at once.

        Vectors of other dimensions or of another norm are left out, and logged.
        """
        yield
        self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        dim = self.index.dim if self.index else len(next(iter(waiting.values()), ([],))[0])
        rows = [row for row, (vector, _) in waiting.items() if len(vector) == dim]
        if dim and rows:
            self.index = self.index or VectorIndex(dim)
            vectors = np.array([waiting[row][0] for row in rows], np.float32)
            fits = np.abs(np.linalg.norm(vectors, axis=1) - 1) < _NORM_TOLERANCE
            labels = np.array([waiting[row][1] for row in rows], np.int32)
            self.index.put(np.array(rows)[fits], vectors[fits], labels=labels[fits])
            rows = np.array(rows)[fits].tolist()
        if len(rows) < len(waiting):
            refused = sorted(waiting.keys() - set(rows))
            if self.index:
                self.index.remove(refused)
            log.warning("feed.refused", what="embeddings", count=len(refused), example=self.rows.id(refused[0]))

    def vector(self, row: int) -> NDArray[np.float32] | None:
        """(dim,) of a row, or None."""
        return self.index.vector(row) if self.index else None

    async def search(
        self, vector: ArrayLike, k: int, *, label: int | None = None, leave_out: Sequence[int] = ()
    ) -> Found | None:
        """What VectorIndex.search finds, in a thread; None where nothing is held."""
        if self.index is None:
            return None
        return await asyncio.to_thread(self.index.search, vector, k, label=label, leave_out=leave_out)

    def hits(self, found: Found, k: int) -> list[Hit]:
        """The first k that are still there."""
        named = zip(map(self.rows.id, found.rows.tolist()), found.scores.tolist(), strict=True)
        return [Hit(name, score) for name, score in named if name is not None][:k]
