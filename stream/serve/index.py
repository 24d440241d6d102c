"""Vectors of a taste space, searched by inner product while they change.

Few vectors are searched one by one, which is exact. Many are divided into cells, of which a search visits those nearest
to the query. It scores the best of them anew, by the vectors in 16 bits a value. What is put after the cells were built
stands in a tail that is searched one by one, until `rebuild` builds the cells anew beside the old ones.
"""

# faiss's constructors take other arguments than those that SWIG declares.
# pyright: reportCallIssue=false

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream.serve.cells import Bits, Cells, Ints, Vectors

FLAT_UP_TO = 200_000
CELLS = 1024
VISITED = ((1 / 2, 160), (1 / 20, 192), (0.0, 384))
"""Cells that a search visits, by the least share of the vectors that its filter leaves.

The fewer are left, the farther away they are. `bench.py index` measures the recall that they give.
"""

NO_LABEL = -1
_LEAST_TAIL = 65_536
_FEW = 8192  # so many vectors that a filter leaves are searched one by one: they may be in cells that are not visited
_SCORED_ANEW = 64, 8  # rows of a search, and more for each that is wanted


class Found(NamedTuple):
    """What a search found, best first.

    Attributes:
        rows: (n,) int64.
        scores: (n,) float32, inner products.
    """

    rows: Ints
    scores: Vectors


class Sample(NamedTuple):
    """Rows with what they hold, in their order.

    Attributes:
        rows: (n,) int64.
        vectors: (n, dim) float32; rounded to 16 bits a value where they stand in the cells.
        labels: (n,) int32.
    """

    rows: Ints
    vectors: Vectors
    labels: NDArray[np.int32]


class VectorIndex:
    """Vectors by row number, each with a label, for searches that may leave rows out.

        index = VectorIndex(40)
        index.put([0, 1, 2], vectors, labels=[7, 7, 8])
        index.search(query, 10, label=7, leave_out=[0]).rows   # [1]
        if index.rebuild_due:
            index.rebuild()

    Any number of threads may search while others put, remove or rebuild; these wait for each other, and searches wait
    for nobody. faiss runs in the thread of the caller alone, without the GIL. A search that runs while a vector is
    replaced finds the old one or the new one.

    It takes 4 bytes a dimension and 16 more for each vector up to `flat_up_to`; beyond, 2.5 bytes a dimension and 16
    more (120 MB for a million of 40 dimensions) after a rebuild, and twice that while one runs. The greatest row number
    counts, not how many there are.

    Args:
        dim: of the vectors.
        flat_up_to: how many vectors are searched one by one.
    """

    def __init__(self, dim: int, *, flat_up_to: int = FLAT_UP_TO) -> None:
        self.dim = dim
        self._flat_up_to = flat_up_to
        self._writing, self._rebuilding = threading.Lock(), threading.Lock()
        self._parts = _Parts(None, _Tail(dim, capacity=256, rows=256))
        self._touched: list[Ints] | None = None  # rows put or removed since a rebuild began
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        base, tail = self._parts
        return tail.nbytes + (base.nbytes if base else 0)

    def put(self, rows: ArrayLike, vectors: ArrayLike, *, labels: ArrayLike | None = None) -> None:
        """Put vectors in, in place of those that the rows had.

        Args:
            rows: (n,) integers from 0; of a row that comes twice the last vector stands.
            vectors: (n, dim).
            labels: (n,) integers from 0; NO_LABEL for none.
        """
        rows, vectors = np.asarray(rows, np.int64), np.asarray(vectors, np.float32)
        labels = np.full(len(rows), NO_LABEL, np.int32) if labels is None else np.asarray(labels, np.int32)
        if vectors.shape != (len(rows), self.dim) or labels.shape != rows.shape:
            raise ValueError(f"{len(rows)} rows need as many vectors of {self.dim}, got {vectors.shape}")
        if not len(rows):
            return
        last = len(rows) - 1 - np.unique(rows[::-1], return_index=True)[1]
        rows, vectors, labels = rows[last], vectors[last], labels[last]
        with self._writing:
            base, tail = self._parts
            if not tail.fits(rows):
                tail = tail.grown(tail.used + len(rows), rows=int(rows[-1]) + 1)
                self._parts = _Parts(base, tail)
            replaced = tail.slots[rows]
            in_base = base.has(rows) if base else np.zeros(len(rows), bool)
            tail.append(rows, vectors, labels)
            # Only now the old ones go: a search looks into the base first, and finds one of the two.
            _clear(tail.alive, replaced[replaced >= 0])
            if base:
                base.kill(rows)
            self._note(rows, more=int(((replaced < 0) & ~in_base).sum()))

    def remove(self, rows: ArrayLike) -> None:
        """Take rows out; those that are not there do no harm."""
        rows = np.unique(np.asarray(rows, np.int64))
        with self._writing:
            base, tail = self._parts
            slots = tail.slots_of(rows)
            in_base = base.has(rows) if base else np.zeros(len(rows), bool)
            _clear(tail.alive, slots[slots >= 0])
            tail.slots[rows[rows < len(tail.slots)]] = -1
            if base:
                base.kill(rows)
            self._note(rows, more=-int(((slots >= 0) | in_base).sum()))

    def vector(self, row: int) -> Vectors | None:
        """(dim,) float32 of a row, or None; rounded to 16 bits a value where it stands in the cells."""
        base, tail = self._parts
        rows = np.array([row])
        if (slot := tail.slots_of(rows)[0]) >= 0:
            return tail.vectors[slot].copy()
        return base.vectors[row].astype(np.float32) if base and base.has(rows)[0] else None

    def search(self, query: ArrayLike, k: int, *, label: int | None = None, leave_out: ArrayLike = ()) -> Found:
        """The rows with the greatest inner products.

        Args:
            query: (dim,).
            k: the most rows.
            label: only rows with it.
            leave_out: (n,) rows that are not wanted.

        Returns:
            Fewer than k rows where no more are left, or where the cells that are visited have no more.
        """
        faiss.omp_set_num_threads(1)  # of this thread
        query = np.ascontiguousarray(query, np.float32).reshape(1, self.dim)
        unwanted = np.asarray(leave_out, np.int64)
        base, tail = self._parts
        found = [base.search(query, k, label, unwanted)] if base else []
        found.insert(0, tail.search(query, k, label, unwanted))
        rows = np.concatenate([part.rows for part in found])
        scores = np.concatenate([part.scores for part in found])
        # A row that was replaced meanwhile may be there twice.
        order = np.argsort(-scores, kind="stable")
        first = np.zeros(len(rows), bool)
        first[np.unique(rows, return_index=True)[1]] = True
        order = order[first[order] & ~np.isin(rows[order], unwanted)][:k]
        return Found(rows[order], scores[order])

    def sample(self, most: int) -> Sample:
        """All rows, or `most` of them where there are more: the same ones again, but for rows that come and go."""
        with self._writing:
            base, tail = self._parts
            rows = tail.rows[_numbers(tail.alive, tail.used)]
            if base:
                rows = np.concatenate([_numbers(base.alive), rows])
            if len(rows) > most:
                rows = rows[np.argpartition(_scattered(rows), most)[:most]]
            rows = np.sort(rows)
            slots = tail.slots_of(rows)
            vectors, labels = tail.vectors[slots], tail.labels[slots]
            if base:
                in_base = slots < 0
                vectors[in_base], labels[in_base] = base.vectors[rows[in_base]], base.labels[rows[in_base]]
            return Sample(rows, vectors, labels)

    @property
    def rebuild_due(self) -> bool:
        """Whether searches would be faster after a rebuild."""
        base, tail = self._parts
        live = len(tail)
        if tail.used - live > max(_LEAST_TAIL, live):
            return True
        if base is None:
            return self._count > self._flat_up_to
        return live > max(min(_LEAST_TAIL, self._flat_up_to), base.built // 8) or len(base) < base.built // 2

    def rebuild(self) -> None:
        """Build anew what is searched, beside what is searched meanwhile, and swap.

        A million vectors take some 3 s of one core. Puts and removals go on.
        """
        with self._rebuilding:
            faiss.omp_set_num_threads(1)
            with self._writing:
                base, tail = self._parts
                used, alive, in_base = tail.used, tail.alive.copy(), base.alive.copy() if base else _NO_BITS
                many, self._touched = self._count > self._flat_up_to, []
            built = _Base.of(base, _numbers(in_base), tail, _numbers(alive, used)) if many else None
            with self._writing:
                tail = self._parts.tail  # it may have grown
                slots = _numbers(tail.alive, tail.used)
                if built:
                    for rows in self._touched:
                        built.kill(rows)
                    slots = slots[slots >= used]
                back = _numbers(base.alive) if base and not built else _NO_ROWS
                fresh = _Tail(self.dim, capacity=max(256, 2 * (len(slots) + len(back))), rows=len(tail.slots))
                if base and len(back):
                    fresh.append(back, base.vectors[back].astype(np.float32), base.labels[back])
                fresh.append(tail.rows[slots], tail.vectors[slots], tail.labels[slots])
                self._parts, self._touched = _Parts(built, fresh), None

    def _note(self, rows: Ints, *, more: int) -> None:
        self._count += more
        if self._touched is not None:
            self._touched.append(rows)


class _Parts(NamedTuple):
    """What is searched at a moment."""

    base: _Base | None
    tail: _Tail


class _Tail:
    """Vectors in the order in which they were put, those that are alive marked in a bitmap; searched one by one.

    What was written to a slot stays; a search may run meanwhile.
    """

    def __init__(self, dim: int, *, capacity: int, rows: int) -> None:
        self.used = 0
        self.vectors = np.empty((capacity, dim), np.float32)
        self.rows = np.empty(capacity, np.int64)
        self.labels = np.empty(capacity, np.int32)
        self.alive = _no_bits(capacity)
        self.slots = np.full(rows, -1, np.int32)  # of each row, or -1

    def __len__(self) -> int:
        return _ones(self.alive)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.vectors, self.rows, self.labels, self.alive, self.slots))

    def fits(self, rows: Ints) -> bool:
        return self.used + len(rows) <= len(self.rows) and rows[-1] < len(self.slots)

    def grown(self, capacity: int, *, rows: int) -> _Tail:
        """A copy with room for more."""
        capacity = len(self.rows) if capacity <= len(self.rows) else max(capacity, 2 * len(self.rows))
        rows = len(self.slots) if rows <= len(self.slots) else max(rows, 2 * len(self.slots))
        other = _Tail(self.vectors.shape[1], capacity=capacity, rows=rows)
        for name in ("vectors", "rows", "labels"):
            getattr(other, name)[: self.used] = getattr(self, name)[: self.used]
        other.alive[: len(self.alive)] = self.alive
        other.slots[: len(self.slots)] = self.slots
        other.used = self.used
        return other

    def slots_of(self, rows: Ints) -> NDArray[np.int32]:
        """The slot of each row, -1 for none."""
        slots = np.full(len(rows), -1, np.int32)
        known = rows < len(self.slots)
        slots[known] = self.slots[rows[known]]
        return slots

    def append(self, rows: Ints, vectors: Vectors, labels: NDArray[np.int32]) -> None:
        slots = np.arange(self.used, self.used + len(rows))
        self.vectors[slots], self.rows[slots], self.labels[slots] = vectors, rows, labels
        _set(self.alive, slots)
        self.slots[rows] = slots
        self.used += len(rows)

    def search(self, query: Vectors, k: int, label: int | None, unwanted: Ints) -> Found:
        used = self.used
        if not used:
            return _NOTHING
        alive = self.alive
        if label is not None:
            with_label = _bits(self.labels[:used] == label)
            alive = alive[: len(with_label)] & with_label
        if len(unwanted):
            slots = self.slots_of(unwanted)
            alive = _without(alive, slots[(slots >= 0) & (slots < used)])
        scores, slots = np.empty((1, k), np.float32), np.empty((1, k), np.int64)
        arrays = (faiss.swig_ptr(array) for array in (query, self.vectors))
        wanted = faiss.IDSelectorBitmap(alive.view(np.uint8))
        faiss.knn_inner_product(  # what faiss.IndexFlatIP calls, with vectors that it would copy
            *arrays, query.shape[1], 1, used, k, faiss.swig_ptr(scores), faiss.swig_ptr(slots), wanted
        )
        there = slots[0] >= 0
        return Found(self.rows[slots[0, there]], scores[0, there])


class _Base:
    """Vectors by row in cells. Rows may leave, and none comes.

    Args:
        rows: (n,) that have a vector, ascending.
        vectors: (rows[-1] + 1, dim) float16, by row.
        labels: (rows[-1] + 1,) by row.
    """

    def __init__(self, rows: Ints, vectors: NDArray[np.float16], labels: NDArray[np.int32]) -> None:
        self.vectors, self.labels, self.built = vectors, labels, len(rows)
        self.alive = _no_bits(len(vectors))
        _set(self.alive, rows)
        self._of_label: dict[int, Bits] = {}
        self._cells = Cells(rows, vectors, count=CELLS)

    @classmethod
    def of(cls, base: _Base | None, in_base: Ints, tail: _Tail, slots: Ints) -> _Base:
        """What is alive in a base and a tail."""
        of_tail = tail.rows[slots]
        rows = np.union1d(in_base, of_tail)
        vectors = np.zeros((int(rows[-1]) + 1, tail.vectors.shape[1]), np.float16)
        labels = np.full(len(vectors), NO_LABEL, np.int32)
        if base:
            vectors[in_base], labels[in_base] = base.vectors[in_base], base.labels[in_base]
        vectors[of_tail], labels[of_tail] = tail.vectors[slots], tail.labels[slots]
        return cls(rows, vectors, labels)

    def __len__(self) -> int:
        return _ones(self.alive)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and of the cells."""
        marks = sum(array.nbytes for array in (self.alive, *self._of_label.values()))
        return self.vectors.nbytes + self.labels.nbytes + marks + self._cells.nbytes

    def has(self, rows: Ints) -> NDArray[np.bool_]:
        """Whether each row is alive here."""
        there = rows < len(self.vectors)
        known = rows[there]
        there[there] = self.alive[known >> 6] & _masks(known) != 0
        return there

    def kill(self, rows: Ints) -> None:
        _clear(self.alive, rows[rows < len(self.vectors)])

    def search(self, query: Vectors, k: int, label: int | None, unwanted: Ints) -> Found:
        alive = self.alive if label is None else self.alive & self._with_label(label)
        if len(unwanted):
            alive = _without(alive, unwanted[unwanted < len(self.vectors)])
        if (left := _ones(alive)) <= _FEW:
            return _exact(query, k, _numbers(alive), self.vectors)
        visited = next(cells for share, cells in VISITED if left >= share * self.built)
        some, each = _SCORED_ANEW
        rows = self._cells.search(query, some + each * k, wanted=alive, visited=visited)
        return _exact(query, k, rows, self.vectors)

    def _with_label(self, label: int) -> Bits:
        if label not in self._of_label:
            self._of_label[label] = _bits(self.labels == label)
        return self._of_label[label]


_NOTHING = Found(np.empty(0, np.int64), np.empty(0, np.float32))
_NO_BITS, _NO_ROWS = np.empty(0, np.uint64), np.empty(0, np.int64)


def _exact(query: Vectors, k: int, rows: Ints, vectors: NDArray[np.float16]) -> Found:
    scores = vectors[rows].astype(np.float32) @ query[0]
    best = np.argpartition(-scores, k)[:k] if len(rows) > k else np.arange(len(rows))
    return Found(rows[best], scores[best])


def _scattered(rows: Ints) -> Ints:
    """A number for each row, as if drawn by lot (Knuth's multiplicative hash)."""
    return rows * 2_654_435_761 & 0xFFFF_FFFF


def _no_bits(size: int) -> Bits:
    """A bitmap of zeros, in words of 64: the least bit comes first, as faiss wants it."""
    return np.zeros((size + 63) // 64, np.uint64)


def _bits(marks: NDArray[np.bool_]) -> Bits:
    bits = _no_bits(len(marks))
    packed = np.packbits(marks, bitorder="little")
    bits.view(np.uint8)[: len(packed)] = packed
    return bits


def _numbers(bits: Bits, size: int | None = None) -> Ints:
    """The places of the ones among the first `size` bits."""
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[:size].view(np.bool_))


def _ones(bits: Bits) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def _masks(places: NDArray[Any]) -> Bits:
    return np.uint64(1) << (places & 63).astype(np.uint64)


def _set(bits: Bits, places: NDArray[Any]) -> None:
    np.bitwise_or.at(bits, places >> 6, _masks(places))


def _clear(bits: Bits, places: NDArray[Any]) -> None:
    np.bitwise_and.at(bits, places >> 6, ~_masks(places))


def _without(bits: Bits, places: NDArray[Any]) -> Bits:
    bits = bits.copy()
    _clear(bits, places)
    return bits
