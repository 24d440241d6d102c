"""95 % intervals of figures over users, by a bootstrap.

It draws users and not examples, for the examples of a user go right or wrong together.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Leaf = dict[str, float | int | None]
"""A figure of metrics.json: value, n, and low and high of its interval."""

_COVERAGE_WORK = 10**8  # lists times replicates: beyond it, the interval of the coverage comes of fewer replicates
_FEWEST_REPLICATES = 100
_CHUNK_VALUES = 2**21  # 16 MiB


class Bootstrap:
    """Users drawn with replacement: the same draws for every figure of a run, so that models can be compared.

    Example:
        bootstrap = Bootstrap(examples.users, replicates=1000, seed=0)
        hits = ranked.values()[:, 0]
        replicates = bootstrap.means(hits[:, None], {"all": np.ones(len(hits), bool)})["all"][:, 0]
        low, high = interval(hits.mean(), replicates)

    Attributes:
        users: how many there are to draw.
    """

    def __init__(self, users: NDArray[np.integer], *, replicates: int, seed: int) -> None:
        """The users of (n,) examples, drawn anew in each replicate."""
        distinct, self._row = np.unique(users, return_inverse=True)
        self.users = len(distinct)
        rng = np.random.default_rng(seed)
        self._draws = np.empty((replicates, self.users), np.uint8)  # nobody is drawn 256 times
        for draw in self._draws:
            draw[:] = np.bincount(rng.integers(self.users, size=self.users), minlength=self.users)

    def means(self, values: Float64, slices: dict[str, Bool]) -> dict[str, Float64]:
        """Means of (n, c) values over slices (n,) of the examples: (replicates, c) each, NaN where nobody was drawn."""
        columns = [np.column_stack([values, np.ones(len(values))]) * mask[:, None] for mask in slices.values()]
        of_example = np.concatenate(columns, axis=1)
        of_user = np.stack(
            [np.bincount(self._row, column, minlength=self._draws.shape[1]) for column in of_example.T], axis=1
        )
        sums = np.concatenate([draws @ of_user for draws in self._chunks(self.users)])
        with np.errstate(invalid="ignore"):
            return {
                name: part[:, :-1] / part[:, -1:]
                for name, part in zip(slices, np.split(sums, len(slices), axis=1), strict=True)
            }

    def coverage(self, top: NDArray[np.int32], *, tracks: int) -> tuple[float, Float64]:
        """Share of the catalogue that stands in anybody's list, and the same of each replicate.

        Args:
            top: (n, LIST_LENGTH) places of tracks; rows of examples that do not count are -1 throughout.
            tracks: of the catalogue.
        """
        listed = top >= 0
        users = np.broadcast_to(self._row[:, None], top.shape)[listed]
        in_lists, columns = np.unique(top[listed], return_inverse=True)
        lists = sparse.csr_array((np.ones(len(users), np.float32), (columns, users)),
                                 shape=(len(in_lists), self._draws.shape[1]))  # fmt: skip
        most = max(_FEWEST_REPLICATES, _COVERAGE_WORK // max(1, lists.nnz))
        width = max(self.users, len(in_lists))
        shares = [((lists @ draws.T) > 0).sum(axis=0) / tracks for draws in self._chunks(width, most=most)]
        return len(in_lists) / tracks, np.concatenate(shares)

    def _chunks(self, width: int, *, most: int | None = None) -> Iterator[Float64]:
        """The draws, as many at a time as keep an array of (draws, width) small."""
        draws, rows = self._draws[:most], max(1, _CHUNK_VALUES // max(1, width))
        for start in range(0, len(draws), rows):
            yield draws[start : start + rows].astype(np.float64)


def leaf(value: float, *, n: int, replicates: Float64) -> Leaf:
    """A metric with its interval; without either where the value is NaN.

    The interval is that of the replicates' differences from their own mean, around the value: a union of lists is
    smaller in every replicate, for about a third of the users are not drawn.
    """
    if np.isnan(value):
        return {"value": None, "n": n, "low": None, "high": None}
    low, high = np.clip(interval(value, replicates), 0.0, 1.0)
    return {"value": value, "n": n, "low": float(low), "high": float(high)}


def interval(value: float, replicates: Float64) -> tuple[float, float]:
    """95 % interval around a value, of the replicates' differences from their mean; NaN replicates do not count."""
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return value, value
    low, high = value + np.quantile(known - known.mean(), (0.025, 0.975))
    return float(low), float(high)
