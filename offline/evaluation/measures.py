"""The metrics of a scorer on the test, and how far they are from those of the best floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split
from offline.ranking.examples import HISTORIES, PROTOCOLS, Examples, History
from offline.ranking.intervals import Bootstrap, Leaf, interval, leaf
from offline.ranking.rank import LIST_LENGTH, METRICS, Ranked, Scorer, rank

Float64 = NDArray[np.float64]

COVERAGE = f"coverage_at_{LIST_LENGTH}"
"""Share of the catalogue that stands in anybody's list of recommendations."""

FEWEST_USERS = 10
"""Whose examples can tell a winner: with fewer, no interval tells anything."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Metrics of a scorer under a protocol.

    Attributes:
        leaves: of each slice, of each metric: value, n, low and high of the 95 % interval.
        values: (METRICS,) over all examples of the protocol.
        replicates: (replicates, METRICS) of the bootstrap, over all examples of the protocol.
        users: whom it draws.
    """

    leaves: dict[str, dict[str, Leaf]]
    values: Float64
    replicates: Float64
    users: int


def measure(ranked: Ranked, examples: Examples, protocol: str, *, bootstrap: Bootstrap, catalogue: int) -> Measured:
    """The metrics of a protocol over all of its examples and over each slice.

    Args:
        ranked: what the scorer made of the examples.
        examples: the examples.
        protocol: one of PROTOCOLS.
        bootstrap: of the users of the examples.
        catalogue: how many tracks there are.
    """
    slices, values = examples.slices(protocol), ranked.values()
    replicates = bootstrap.means(values, slices)
    leaves: dict[str, dict[str, Leaf]] = {}
    for name, mask in slices.items():
        count, means = int(mask.sum()), _mean(values[mask])
        leaves[name] = {
            metric: leaf(float(mean), n=count, replicates=column)
            for metric, mean, column in zip(METRICS, means, replicates[name].T, strict=True)
        }
        covered, shares = bootstrap.coverage(np.where(mask[:, None], ranked.top, -1), tracks=catalogue)
        leaves[name][COVERAGE] = leaf(covered if count else np.nan, n=catalogue, replicates=shares)
    means = _mean(values[slices["all"]])
    return Measured(leaves=leaves, values=means, replicates=replicates["all"], users=bootstrap.users)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What the test part asks of every scorer.

    Attributes:
        log, split: what is ranked.
        examples: with histories before the moment of the target: the headline.
        stood: the same with histories as they stood; None where these are no others.
        bootstrap: of the users of the examples.
    """

    log: InteractionLog
    split: Split
    examples: Examples
    stood: Examples | None
    bootstrap: Bootstrap

    @classmethod
    def of(cls, log: InteractionLog, split: Split, positions: NDArray[np.int64], *, bootstrap: Bootstrap) -> Judged:
        """The examples at (n,) positions."""
        strict, stood = (Examples.of(log, split, positions, history=history) for history in HISTORIES)
        changed = bool((strict.ends != stood.ends).any())
        return cls(log=log, split=split, examples=strict, stood=stood if changed else None, bootstrap=bootstrap)

    def rank(
        self, scorers: Mapping[str, Scorer], *, advance: Callable[[int], None] = lambda _: None
    ) -> dict[History, dict[str, Ranked]]:
        """By history and protocol what the scorer of each protocol makes of the examples.

        Histories as they stood are ranked where they are others, which costs no more than these examples.
        """
        strict = _rank_each(scorers, self.log, self.examples, advance=advance)
        if self.stood is None:
            return {"before_moment": strict}
        moved = np.flatnonzero(self.stood.ends != self.examples.ends)
        examples = Examples.of(self.log, self.split, self.stood.positions[moved], history="as_it_stood")
        again = _rank_each(scorers, self.log, examples, advance=lambda _: None)
        stood = {protocol: _replaced(strict[protocol], moved, again[protocol]) for protocol in PROTOCOLS}
        return {"before_moment": strict, "as_it_stood": stood}

    def measure(self, ranked: Mapping[History, dict[str, Ranked]]) -> dict[History, dict[str, Measured]]:
        """Metrics by history and protocol of what `rank` gave."""
        examples = {"before_moment": self.examples, "as_it_stood": self.stood}
        return {
            history: {
                protocol: measure(
                    of_protocol, examples[history], protocol, bootstrap=self.bootstrap, catalogue=len(self.log.tracks)
                )
                for protocol, of_protocol in by_protocol.items()
            }
            for history, by_protocol in ranked.items()
        }


def _rank_each(
    scorers: Mapping[str, Scorer], log: InteractionLog, examples: Examples, *, advance: Callable[[int], None]
) -> dict[str, Ranked]:
    ranked: dict[str, Ranked] = {}
    for scorer in {
        id(scorer): scorer for scorer in scorers.values()
    }.values():  # once where it is the same in all protocols
        own = [protocol for protocol in PROTOCOLS if scorers[protocol] is scorer]
        ranked |= rank(scorer, log, examples, protocols=own, advance=advance)
    return ranked


def _replaced(ranked: Ranked, places: NDArray[np.int64], by: Ranked) -> Ranked:
    ranks, top = ranked.ranks.copy(), ranked.top.copy()
    ranks[places], top[places] = by.ranks, by.top
    return Ranked(ranks=ranks, top=top)


def against_best(model: Measured, floors: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """For each of METRICS: the best floor, and by how much the model is above it, users drawn alike for both.

    Of fewer than FEWEST_USERS the interval is everything that could be: resampling them tells nothing.
    """
    comparisons: dict[str, dict[str, Any]] = {}
    for column, metric in enumerate(METRICS):
        best = max(floors, key=lambda name: floors[name].values[column])
        difference = float(model.values[column] - floors[best].values[column])
        comparisons[metric] = {"floor": best, "difference": None, "low": None, "high": None}
        if not np.isnan(difference):
            low, high = interval(difference, model.replicates[:, column] - floors[best].replicates[:, column])
            if model.users < FEWEST_USERS:
                low, high = -1.0, 1.0
            comparisons[metric] |= {"difference": difference, "low": low, "high": high}
    return comparisons


def _mean(values: Float64) -> Float64:
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)
