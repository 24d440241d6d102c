"""Whether a difference of recipes is one: McNemar's test, ranks, intervals, and what a number of tracks can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from offline.ranking.intervals import Bootstrap, interval

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

POWER, LEVEL = 0.8, 0.05
_QUANTILES = float(norm.ppf(1 - LEVEL / 2)), float(norm.ppf(POWER))


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A share or a difference of shares, with its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of two accuracies in cross-validation.

    Attributes:
        value, low, high: of the difference, with its 95 % interval over artists and seeds.
        standard_error: of the replicates of the bootstrap.
        detectable: the smallest difference that is found with a chance of 80 % at a level of 5 %; None where the
            recipes are right on the same tracks.
    """

    value: float
    low: float
    high: float
    standard_error: float
    detectable: float | None


class McNemar(msgspec.Struct, frozen=True, kw_only=True):
    """McNemar's exact test of two recipes on the same tracks (Psychometrika 12, 1947).

    Attributes:
        tracks: how many.
        gained: tracks on which only the second is right.
        lost: tracks on which only the first is right.
        p: two-sided.
        detectable: the smallest difference that so many tracks show (smallest_difference); None where the recipes are
            right on the same tracks, and nothing says how often they would differ.
    """

    tracks: int
    gained: int
    lost: int
    p: float
    detectable: float | None


def mcnemar(first: Bool, second: Bool) -> McNemar:
    """Compare two recipes by whether each (tracks,) is right.

    Only tracks on which one alone is right tell something: gained of them are binomial with a chance of one half where
    the recipes are equal.
    """
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    detectable = smallest_difference(len(first), discordant=(gained + lost) / len(first)) if gained + lost else None
    return McNemar(tracks=len(first), gained=gained, lost=lost, p=p, detectable=detectable)


def smallest_difference(tracks: int, *, discordant: float) -> float:
    """The smallest difference of two accuracies that McNemar's test finds with a chance of 80 % at a level of 5 %.

    The difference d for which n tracks are as many as are needed: n d^2 = (z_.975 sqrt(s) + z_.8 sqrt(s - d^2))^2
    (Connor, Sample Size for Testing Differences in Proportions for the Paired-Sample Design, Biometrics 43, 1987). A
    difference cannot be greater than s; where d would have to be, the recipes would have to differ more often, and s is
    taken as d.

    Args:
        tracks: n.
        discordant: s, the share of the tracks on which one recipe alone is right, above 0.
    """
    of_level, of_power = _QUANTILES

    def lacking(difference: float) -> float:
        share = max(discordant, difference)
        needed = of_level * math.sqrt(share) + of_power * math.sqrt(share - difference**2)
        return needed - difference * math.sqrt(tracks)

    if lacking(1.0) > 0:
        return 1.0
    root: Any = brentq(lacking, 0.0, 1.0, xtol=1e-12)
    return float(root)


def rank_p(value: float, permuted: Sequence[float]) -> float:
    """The chance to stand so high among the permuted by luck alone: (1 + those that reach it) / (1 + all).

    Phipson & Smyth, Permutation P-values Should Never Be Zero, 2010.
    """
    return (1 + sum(one >= value for one in permuted)) / (1 + len(permuted))


class Draws:
    """Replicates of a cross-validation: artists and seeds drawn with replacement, the same for all recipes.

    The tracks of an artist are drawn together, since they go right or wrong together.

    Args:
        artists: (tracks,) numbers.
        seeds: how many times the folds were drawn.
        replicates: of the bootstrap.
        seed: of it.
    """

    def __init__(self, artists: NDArray[np.int64], *, seeds: int, replicates: int, seed: int) -> None:
        self._artists = Bootstrap(artists, replicates=replicates, seed=seed)
        self._seeds = np.random.default_rng(seed + 1).integers(seeds, size=(replicates, seeds))

    def accuracy(self, right: Bool, tracks: Bool | None = None) -> Estimate:
        """Of whether each track was right, (seeds, tracks) or (tracks,); of some tracks alone where they are given."""
        value, replicates = self._means(right.astype(np.float64), tracks)
        low, high = np.clip(interval(value, replicates), 0.0, 1.0)
        return Estimate(value=value, low=float(low), high=float(high))

    def difference(self, first: Bool, second: Bool) -> Difference:
        """How much more often the second is right than the first; both (seeds, tracks)."""
        value, replicates = self._means(second.astype(np.float64) - first, None)
        low, high = interval(value, replicates)
        error = float(replicates.std())
        return Difference(
            value=value, low=low, high=high, standard_error=error, detectable=sum(_QUANTILES) * error if error else None
        )

    def _means(self, values: Float64, tracks: Bool | None) -> tuple[float, Float64]:
        counted = np.ones(values.shape[-1], bool) if tracks is None else tracks
        means = self._artists.means(np.atleast_2d(values).T, {"": counted})[""]
        if values.ndim == 2:
            means = np.take_along_axis(means, self._seeds, axis=1)
        return float(values[..., counted].mean()), means.mean(axis=1)
