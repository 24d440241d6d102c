"""The place of each example's target among all tracks, by the scores that a model gives them.

Every track of the log is a candidate, never a sample (Krichene & Rendle, On Sampled Metrics for Item
Recommendation, KDD 2020). The rank of a target is pessimistic: one plus the number of other candidates with a
score at least as high, so that a scorer gains nothing by scoring many tracks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offline.interactions.log import InteractionLog, spans
from offline.ranking.examples import PROTOCOLS, Examples, chunks

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

CUTOFFS = (10, 50, 100)
LIST_LENGTH = 10
"""Tracks of a list of recommendations: what ndcg_at_10 and coverage_at_10 look at."""
METRICS = (*(f"recall_at_{cutoff}" for cutoff in CUTOFFS), f"ndcg_at_{LIST_LENGTH}")
"""The metrics that are means over examples."""

MISSED = np.iinfo(np.int64).max
"""The rank of a target that was not ranked."""

_CHUNK_BYTES = 64 * 2**20  # of scores
_GROUP = 32  # tracks, far apart: the best of a whole catalogue are found by the best of each group


class Scorer(Protocol):
    """What gives every track a score for a listening history.

    Example:
        class Newest:  # the tracks that came last to the catalogue first, for everybody
            name = "newest"

            def scores(self, log, users, ends):
                return np.tile(np.arange(len(log.tracks), dtype=np.float32), (len(users), 1))
    """

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

    Example:
        recalls = rank(scorer, log, examples)["replay"].values()[:, METRICS.index("recall_at_10")]

    Args:
        scorer: what ranks. Its NaN counts as -inf.
        log: the log of the examples.
        examples: (n,) of them.
        ends: (n,) where the history that the scorer sees ends; that of the examples when None. What discovery
            removes is always the history of the examples.
        protocols: which of PROTOCOLS.
        advance: called after each chunk with its number of examples times that of the protocols.

    Returns:
        By protocol, the ranks of all n examples.
    """
    ends = examples.ends if ends is None else ends
    parts: dict[str, list[Ranked]] = {protocol: [] for protocol in protocols}
    rows = max(1, _CHUNK_BYTES // (4 * len(log.tracks)))
    for chunk in chunks(examples.ends - log.offsets[examples.users], rows=rows):
        users, targets = examples.users[chunk], examples.targets[chunk]
        scores = np.array(scorer.scores(log, users, ends[chunk]), np.float32)
        np.copyto(scores, -np.inf, where=np.isnan(scores))
        for protocol in sorted(protocols, reverse=True):  # replay before discovery, which removes tracks
            if protocol == "discovery":
                history, events = spans(log.offsets[users], examples.ends[chunk])
                scores[history, log.track[events]] = -np.inf
            parts[protocol].append(Ranked(ranks=_ranks(scores, targets), top=_top(scores)))
        advance(len(users) * len(parts))
    empty = Ranked(ranks=np.empty(0, np.int64), top=np.empty((0, LIST_LENGTH), np.int32))
    return {
        protocol: Ranked(
            ranks=np.concatenate([empty.ranks, *(part.ranks for part in of_protocol)]),
            top=np.concatenate([empty.top, *(part.top for part in of_protocol)]),
        )
        for protocol, of_protocol in parts.items()
    }


def _ranks(scores: Float32, targets: NDArray[np.integer]) -> Int64:
    own = scores[np.arange(len(targets)), targets]
    counts = [np.count_nonzero(row >= value) for row, value in zip(scores, own, strict=True)]  # faster than a sum
    return np.where(own > -np.inf, np.array(counts, np.int64), MISSED)


def _top(scores: Float32) -> NDArray[np.int32]:
    """The best tracks of each row; of equal scores, the track that comes first in the log's order."""
    lists = np.full((len(scores), LIST_LENGTH), -1, np.int32)
    for row, (values, least) in enumerate(zip(scores, _bounds(scores), strict=True)):
        places = np.flatnonzero(values >= least)
        places = places[values[places] > -np.inf]
        best = places[np.argsort(-values[places], kind="stable")[:LIST_LENGTH]]
        lists[row, : len(best)] = best
    return lists


def _bounds(scores: Float32) -> Float32:
    """(n,) scores that at least LIST_LENGTH tracks of a row reach, and not many more: of the best of each group."""
    groups = scores.shape[1] // _GROUP
    if groups < LIST_LENGTH:
        return np.full(len(scores), -np.inf, np.float32)
    best = scores[:, : groups * _GROUP].reshape(len(scores), _GROUP, groups).max(axis=1)
    return np.partition(best, -LIST_LENGTH, axis=1)[:, -LIST_LENGTH]
