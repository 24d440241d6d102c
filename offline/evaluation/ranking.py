"""How well a scorer ranks: the whole catalogue, two protocols, metrics with intervals over users.

Every track of the log is a candidate, never a sample (Krichene & Rendle, On Sampled Metrics for Item
Recommendation, KDD 2020). The rank of a target is pessimistic: one plus the number of other candidates with a
score at least as high, so that a scorer gains nothing by scoring many tracks alike.

discovery: tracks that the user had any event with before are no candidates, and examples whose target is such a
track are left out. replay: nothing is removed, nothing left out.

Intervals are of a bootstrap that draws users, not examples, for the examples of a user go right or wrong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Leaf = dict[str, float | int | None]

PROTOCOLS = ("discovery", "replay")
CUTOFFS = (10, 50, 100)
LIST_LENGTH = 10
"""Tracks of a list of recommendations: what ndcg_at_10 and coverage_at_10 look at."""
METRICS = (*(f"recall_at_{cutoff}" for cutoff in CUTOFFS), f"ndcg_at_{LIST_LENGTH}")
"""The metrics that are means over examples."""
COVERAGE = f"coverage_at_{LIST_LENGTH}"

MAX_EXAMPLES = 50_000
"""Of a test that is judged; where it has more, users are drawn."""
FEWEST_USERS = 10
"""Whose examples can tell a winner: an interval of fewer is none."""

MISSED = np.iinfo(np.int64).max
"""The rank of a target that was not ranked."""

_CHUNK_BYTES = 64 * 2**20  # of scores
_CHUNK_ROWS = 1024  # of histories
_CHUNK_EVENTS = 2**21  # of these histories, some of which may have many thousand
_GROUP = 32  # tracks: the best of a whole catalogue are found by the best of each group
_COVERAGE_WORK = 10**8  # lists times replicates: beyond it, the interval of the coverage comes of fewer replicates
_FEWEST_REPLICATES = 100


class Scorer(Protocol):
    """What gives every track a score for a listening history."""

    @property
    def name(self) -> str:
        """Short, for tables."""
        ...

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """(n, tracks): higher is better, -inf is a track that cannot be recommended.

        Args:
            log: the log that the histories are of.
            users: (n,) places in log.users.
            ends: (n,) the history of row i is the events log.offsets[users[i]] to ends[i], oldest first.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Targets to rank, and what is known of them.

    Attributes:
        positions: (n,) of the targets in the log; the history of each ends there.
        users: (n,) places in log.users.
        targets: (n,) places in log.tracks.
        seen: (n,) the user had an event with the track before.
        tied: (n,) the target stands at the same moment as the event before it: their ids decide which comes first.
        new_users: (n,) the user has no event in the training part.
        new_tracks: (n,) the track has no event in the training part.
    """

    positions: Int64
    users: NDArray[np.integer]
    targets: NDArray[np.integer]
    seen: Bool
    tied: Bool
    new_users: Bool
    new_tracks: Bool

    @classmethod
    def of(cls, log: InteractionLog, split: Split, positions: Int64) -> Examples:
        """The examples whose targets stand at (n,) positions of a log."""
        users = log.user_of(positions)
        targets = np.asarray(log.track[positions])
        starts, seen = log.offsets[users], np.zeros(len(positions), bool)
        for chunk in _chunks(positions - starts, rows=_CHUNK_ROWS):
            rows, events = spans(starts[chunk], positions[chunk])
            seen[chunk.start + rows[log.track[events] == targets[chunk][rows]]] = True
        trained = np.bincount(log.track[in_training(log, split)], minlength=len(log.tracks)) > 0
        return cls(
            positions=positions,
            users=users,
            targets=targets,
            seen=seen,
            tied=(positions > starts) & (log.at[np.maximum(positions - 1, 0)] == log.at[positions]),
            new_users=split.train_end[users] == starts,
            new_tracks=~trained[targets],
        )

    def slices(self, protocol: str) -> dict[str, Bool]:
        """(n,) of the examples of a protocol: all, and those of interest."""
        counted = ~self.seen if protocol == "discovery" else np.ones(len(self.seen), bool)
        found = {
            "all": counted,
            "new_users": counted & self.new_users,
            "new_tracks": counted & self.new_tracks,
            "untied": counted & ~self.tied,
        }
        return found if protocol == "discovery" else found | {"repeats": self.seen}


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """What a scorer made of examples under a protocol.

    Attributes:
        ranks: (n,) of the targets, from 1; MISSED where a target was no candidate.
        top: (n, LIST_LENGTH) places in log.tracks of the recommended tracks, the best first; -1 where there are
            fewer.
    """

    ranks: Int64
    top: NDArray[np.int32]

    def values(self) -> Float64:
        """(n, METRICS) of each example."""
        recalls = [self.ranks <= cutoff for cutoff in CUTOFFS]
        ndcg = np.where(self.ranks <= LIST_LENGTH, 1.0 / np.log2(1.0 + self.ranks.astype(np.float64)), 0.0)
        return np.stack([*recalls, ndcg], axis=1).astype(np.float64)


def in_training(log: InteractionLog, split: Split) -> Bool:
    """(events,): which may be learned from."""
    return np.arange(len(log.track)) < np.repeat(split.train_end, np.diff(log.offsets))


def spans(starts: NDArray[np.integer], ends: NDArray[np.integer]) -> tuple[Int64, Int64]:
    """Spans of positions, laid end to end: the row of each position, and the position."""
    lengths = np.maximum(0, np.asarray(ends, np.int64) - starts)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def rank(
    scorer: Scorer,
    log: InteractionLog,
    examples: Examples,
    *,
    ends: Int64 | None = None,
    protocols: Sequence[str] = PROTOCOLS,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Ranked]:
    """Rank the whole catalogue for every example, in chunks of bounded memory.

    Args:
        scorer: what ranks. Its NaN counts as -inf.
        log: the log of the examples.
        examples: (n,) of them.
        ends: (n,) where the history that the scorer sees ends; the rolling history when None. What discovery
            removes is always that of the rolling history.
        protocols: which of PROTOCOLS.
        advance: told how many examples times protocols have been ranked since it was told last.
    """
    ends = examples.positions if ends is None else ends
    found: dict[str, list[Ranked]] = {protocol: [] for protocol in protocols}
    rows = int(np.clip(_CHUNK_BYTES // (4 * len(log.tracks)), 1, _CHUNK_ROWS))
    for chunk in _chunks(examples.positions - log.offsets[examples.users], rows=rows):
        users, targets = examples.users[chunk], examples.targets[chunk]
        scores = np.array(scorer.scores(log, users, ends[chunk]), np.float32)
        np.copyto(scores, -np.inf, where=np.isnan(scores))
        for protocol in sorted(protocols, reverse=True):  # replay before discovery, which removes tracks
            if protocol == "discovery":
                history, events = spans(log.offsets[users], examples.positions[chunk])
                scores[history, log.track[events]] = -np.inf
            found[protocol].append(Ranked(ranks=_ranks(scores, targets), top=_top(scores)))
        advance(len(users) * len(found))
    empty = Ranked(ranks=np.empty(0, np.int64), top=np.empty((0, LIST_LENGTH), np.int32))
    return {
        protocol: Ranked(
            ranks=np.concatenate([empty.ranks, *(part.ranks for part in parts)]),
            top=np.concatenate([empty.top, *(part.top for part in parts)]),
        )
        for protocol, parts in found.items()
    }


def _chunks(lengths: Int64, *, rows: int) -> Iterator[slice]:
    """(n,) rows in slices of at most so many, and of _CHUNK_EVENTS or a single row."""
    ends, start = np.cumsum(lengths), 0
    while start < len(lengths):
        before = ends[start - 1] if start else 0
        fits = int(np.searchsorted(ends, before + _CHUNK_EVENTS, side="right")) - start
        stop = start + max(1, min(rows, fits, len(lengths) - start))
        yield slice(start, stop)
        start = stop


def draw_users(log: InteractionLog, positions: Int64, *, most: int = MAX_EXAMPLES, seed: int) -> Int64:
    """All test examples, or those of users drawn at random: at least one user, as many as `most` examples allow."""
    if len(positions) <= most:
        return positions
    users, counts = np.unique(log.user_of(positions), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(users))
    kept = max(1, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))
    return positions[np.isin(log.user_of(positions), users[order[:kept]])]


def _ranks(scores: Float32, targets: NDArray[np.integer]) -> Int64:
    own = scores[np.arange(len(targets)), targets]
    return np.where(own > -np.inf, (scores >= own[:, None]).sum(axis=1), MISSED)


def _top(scores: Float32) -> NDArray[np.int32]:
    """The best tracks of each row; of equal scores, the track that comes first in the log's order."""
    lists = np.full((len(scores), LIST_LENGTH), -1, np.int32)
    for row, (values, least) in enumerate(zip(scores, _bounds(scores), strict=True)):
        places = np.flatnonzero((values >= least) & (values > -np.inf))
        best = places[np.argsort(-values[places], kind="stable")[:LIST_LENGTH]]
        lists[row, : len(best)] = best
    return lists


def _bounds(scores: Float32) -> Float32:
    """(n,) scores that at least LIST_LENGTH tracks of a row reach, and not many more: of the best of each group."""
    groups = scores.shape[1] // _GROUP
    if groups < LIST_LENGTH:
        return np.full(len(scores), -np.inf, np.float32)
    best = scores[:, : groups * _GROUP].reshape(len(scores), groups, _GROUP).max(axis=2)
    return np.partition(best, -LIST_LENGTH, axis=1)[:, -LIST_LENGTH]


class Bootstrap:
    """Users drawn with replacement: the same draws for every figure of a run, so that models can be compared.

    Attributes:
        users: how many there are to draw.
    """

    def __init__(self, users: NDArray[np.integer], *, replicates: int, seed: int) -> None:
        """The users of (n,) examples, drawn anew in each replicate."""
        found, self._row = np.unique(users, return_inverse=True)
        self.users = len(found)
        rng = np.random.default_rng(seed)
        self._draws = np.stack(
            [np.bincount(rng.integers(len(found), size=len(found)), minlength=len(found)) for _ in range(replicates)]
        ).astype(np.uint8)  # nobody is drawn 256 times

    def means(self, values: Float64, slices: dict[str, Bool]) -> dict[str, Float64]:
        """Means of (n, c) values over slices (n,) of the examples: (replicates, c) each, NaN where nobody was drawn."""
        columns = [np.column_stack([values, np.ones(len(values))]) * mask[:, None] for mask in slices.values()]
        of_example = np.concatenate(columns, axis=1)
        of_user = np.stack(
            [np.bincount(self._row, column, minlength=self._draws.shape[1]) for column in of_example.T], axis=1
        )
        sums = np.concatenate([draws @ of_user for draws in self._chunks()])
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
        found, columns = np.unique(top[listed], return_inverse=True)
        lists = sparse.csr_array((np.ones(len(users), np.float32), (columns, users)),
                                 shape=(len(found), self._draws.shape[1]))  # fmt: skip
        most = max(_FEWEST_REPLICATES, _COVERAGE_WORK // max(1, lists.nnz))
        shares = [((lists @ draws.T) > 0).sum(axis=0) / tracks for draws in self._chunks(most)]
        return len(found) / tracks, np.concatenate(shares)

    def _chunks(self, most: int | None = None) -> Iterator[Float64]:
        draws = self._draws[:most]
        for start in range(0, len(draws), 100):
            yield draws[start : start + 100].astype(np.float64)


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


def against_best(model: Measured, floors: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """For each of METRICS: the best floor, and by how much the model is above it, users drawn alike for both.

    Of fewer than FEWEST_USERS the interval is everything that could be: resampling them tells nothing.
    """
    found: dict[str, dict[str, Any]] = {}
    for column, metric in enumerate(METRICS):
        best = max(floors, key=lambda name: floors[name].values[column])
        difference = float(model.values[column] - floors[best].values[column])
        found[metric] = {"floor": best, "difference": None, "low": None, "high": None}
        if not np.isnan(difference):
            low, high = interval(difference, model.replicates[:, column] - floors[best].replicates[:, column])
            if model.users < FEWEST_USERS:
                low, high = -1.0, 1.0
            found[metric] |= {"difference": difference, "low": low, "high": high}
    return found


def _mean(values: Float64) -> Float64:
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)
