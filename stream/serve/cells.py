"""Vectors in cells, written in four bits a value, as faiss's fast scan reads them (IndexIVFPQFastScan).

faiss would build the same in five times the CPU time: numpy finds the greatest of a row of products faster, and levels
at equal distances are found by rounding.
"""

# faiss's constructors take other arguments than those that SWIG declares.
# pyright: reportCallIssue=false

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Halves = NDArray[np.float16]
Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]

_SAMPLE_PER_CELL = 40
_ROUNDS = 6  # of k-means: more make no search better
_LEVELS = 16
_STEP = 0.3352
"""Between levels, in standard deviations: the least error (Max, "Quantizing for minimum distortion", 1960)."""
_AT_ONCE = 1024  # vectors whose products with all centres stay in the cache


class Cells:
    """Vectors by row, found by inner product in the cells that are nearest to a query.

    A score is off by some hundredths, so ask for more rows than are wanted, and score those anew. faiss runs in the
    thread of the caller, without the GIL.

    Args:
        rows: (n,) that have a vector.
        vectors: by row, each about as long as the others.
        count: how many cells.
    """

    def __init__(self, rows: Ints, vectors: Halves, *, count: int) -> None:
        sample = vectors[rows[:: max(1, len(rows) // (_SAMPLE_PER_CELL * count))]].astype(np.float32)
        centres = _centres(sample, min(count, len(sample)))
        left = sample - centres[_nearest(sample, centres)]
        step, middle = np.maximum(_STEP * left.std(axis=0), np.finfo(np.float32).tiny), left.mean(axis=0)
        cells, codes = _written(rows, vectors, centres, step=step, middle=middle)
        self._index = _filled(rows, cells, codes, centres, levels=middle + step * _from_the_middle())
        self.nbytes = centres.nbytes + len(rows) * (8 + codes.shape[1])

    def search(self, query: Vectors, k: int, *, wanted: Bits, visited: int) -> Ints:
        """The rows whose scores are greatest, k at most.

        Args:
            query: (1, dim).
            k: the most rows.
            wanted: a bitmap of the rows that may be found.
            visited: how many cells are looked into, if there are so many.
        """
        selected = faiss.IDSelectorBitmap(wanted.view(np.uint8))
        visited = min(visited, self._index.nlist)  # faiss misses vectors where it shall visit more cells than there are
        _, rows = self._index.search(query, k, params=faiss.SearchParametersIVF(sel=selected, nprobe=visited))
        return rows[0, rows[0] >= 0]


def _centres(sample: Vectors, count: int) -> Vectors:
    """(count, dim) of unit norm, by k-means on the sphere. A centre that no vector is nearest to stays where it is."""
    centres = sample[np.random.default_rng(0).choice(len(sample), count, replace=False)]
    for _ in range(_ROUNDS):
        cells = _nearest(sample, centres)
        order = np.argsort(cells, kind="stable")
        there, begins = np.unique(cells[order], return_index=True)
        centres[there] = np.add.reduceat(sample[order], begins, axis=0)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return centres


def _nearest(vectors: Vectors, centres: Vectors) -> NDArray[np.uint16]:
    """The centre with the greatest inner product, for each vector."""
    nearest = np.empty(len(vectors), np.uint16)
    products = np.empty((_AT_ONCE, len(centres)), np.float32)
    for at in range(0, len(vectors), _AT_ONCE):
        some = vectors[at : at + _AT_ONCE]
        nearest[at : at + _AT_ONCE] = np.matmul(some, centres.T, out=products[: len(some)]).argmax(axis=1)
    return nearest


def _from_the_middle() -> Vectors:
    """(16, 1): how many steps each level is from the middle."""
    return np.arange(_LEVELS, dtype=np.float32)[:, None] - (_LEVELS - 1) / 2


def _written(
    rows: Ints, vectors: Halves, centres: Vectors, *, step: Vectors, middle: Vectors
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """The cell of each row, and its distance from the centre: two levels a byte, the first in the low half."""
    dim = vectors.shape[1]
    cells, codes = np.empty(len(rows), np.uint16), np.empty((len(rows), (dim + 1) // 2), np.uint8)
    per_step, zeros = 1 / step, (centres + middle) / step - _LEVELS / 2
    for at in range(0, len(rows), _AT_ONCE):
        some = vectors[rows[at : at + _AT_ONCE]].astype(np.float32)
        of_some = cells[at : at + _AT_ONCE] = _nearest(some, centres)
        levels = np.clip(some * per_step - zeros[of_some], 0, _LEVELS - 1).astype(np.uint8)
        packed = codes[at : at + _AT_ONCE]
        packed[:] = levels[:, 0::2]
        packed[:, : dim // 2] |= levels[:, 1::2] << 4
    return cells, codes


def _filled(
    rows: Ints, cells: NDArray[np.uint16], codes: NDArray[np.uint8], centres: Vectors, *, levels: Vectors
) -> Any:
    """The index as faiss searches it: made as one of a product quantizer with a dimension each, which faiss repacks."""
    count, dim = centres.shape
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centres)
    plain: Any = faiss.IndexIVFPQ(quantizer, dim, count, dim, _LEVELS.bit_length() - 1, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.ascontiguousarray(levels.T, np.float32).ravel(), plain.pq.centroids)
    plain.is_trained = True
    order = np.argsort(cells, kind="stable")
    rows, codes, begin = rows[order], codes[order], 0
    for cell, end in enumerate(np.cumsum(np.bincount(cells, minlength=count)).tolist()):
        if end > begin:
            part = faiss.swig_ptr(rows[begin:end]), faiss.swig_ptr(codes[begin:end])
            plain.invlists.add_entries(cell, end - begin, *part)
        begin = end
    plain.ntotal = len(rows)
    index = faiss.IndexIVFPQFastScan(plain)
    plain.replace_invlists(None)  # the index holds `plain`, whose lists it has copied
    return index
