"""What a user tower has to beat: popularity, a Markov chain, item kNN and EASE.

Each is fitted on the usable listens of the training part, the settings of item kNN and EASE are chosen on the
validation examples, for each protocol by itself, and all score by the rolling history, as a tower does. Tracks
without a usable listen in the training part cannot be recommended. Popularity decides between equal scores.

Item kNN: Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001. EASE: Steck,
Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.history import IS_TARGET, IS_USABLE
from offline.interactions.log import InteractionLog, spans
from offline.interactions.splits import Split, in_training
from offline.ranking.examples import PROTOCOLS, Examples
from offline.ranking.rank import LIST_LENGTH, METRICS, Float32, Int64, Ranked, Scorer, rank

EASE_TRACKS = 6000
"""The most tracks that EASE is fitted for: it inverts a matrix of tracks x tracks."""
EASE_RIDGES = (100.0, 300.0, 1000.0)
KNN_NEIGHBOURS = (50, 1000)
KNN_DECAYS = (0.5, 0.8, 0.95)
KNN_OWN_WEIGHTS = (0.0, 1.0, 3.0)

Sparse = Any
"""scipy.sparse.csr_array, whose products type checkers do not know."""

_KNN_LISTENS = 10
_NEIGHBOURS_IN_ALL = 20_000_000  # 160 MB: a large catalogue keeps fewer of each track
_TOGETHER_LISTENS = 2000  # newest of a user that tell which tracks go together: the work grows with their square
_BLOCK_PAIRS = 4_000_000
_TIE_BREAK = np.float32(1e-6)
_VALIDATION_EXAMPLES = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Popularity:
    """The same for everybody.

    Attributes:
        shares: (tracks,) of the targets in the training part; -inf for tracks without a usable listen there.
    """

    shares: Float32
    name: str = "popularity"

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:  # noqa: ARG002
        """See Scorer."""
        return np.tile(self.shares, (len(users), 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Markov:
    """The probability of the next track after the last usable listen; popularity counts for one listen of its own.

    Attributes:
        follows: (tracks, tracks) how often the column followed the row.
        shares: those of Popularity.
    """

    follows: Sparse
    shares: Float32
    name: str = "markov"

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """See Scorer."""
        last = _histories(log, users, ends, weight=lambda age: age == 0)
        followed = (last @ self.follows).toarray()
        return (followed + self.shares) / (followed.sum(axis=1, keepdims=True) + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemKnn:
    """Tracks like the newest of a history: the sum of their cosine similarities, decaying with age.

    Attributes:
        neighbours: (tracks, tracks) similarity of each to its nearest.
        decay: weight of a listen, relative to the next newer one.
        own_weight: what a track of the history counts for itself, relative to what it counts for an equal one.
        shares: those of Popularity.
    """

    neighbours: Sparse
    decay: float
    own_weight: float
    shares: Float32
    name: str = "item_knn"

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """See Scorer."""
        newest = _histories(log, users, ends, weight=lambda age: self.decay**age * (age < _KNN_LISTENS))
        return _tie_broken((newest @ self.neighbours + self.own_weight * newest).toarray(), self.shares)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ease:
    """A linear autoencoder of which tracks a history holds.

    Attributes:
        weights: (tracks, tracks), its diagonal 0.
        shares: those of Popularity.
    """

    weights: Float32
    shares: Float32
    name: str = "ease"

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """See Scorer."""
        held = _histories(log, users, ends, weight=np.ones_like).toarray() > 0
        return _tie_broken(held.astype(np.float32) @ self.weights, self.shares)


Floor = dict[str, Scorer]
"""By protocol: one scorer with settings for each."""


def fit_floors(log: InteractionLog, split: Split, *, seed: int = 0) -> Iterator[Floor]:
    """The floors of a split, one after the other; EASE only for EASE_TRACKS or fewer.

    Args:
        log: the log.
        split: only its training part is learned from, and only its validation examples are chosen on.
        seed: draws the validation examples where there are very many.
    """
    examples = Examples.of(log, split, _sample(split.valid, seed=seed))

    def best(candidates: Sequence[Scorer], protocol: str) -> Scorer:
        return max(candidates, key=lambda scorer: _ndcg(scorer, log, examples, protocol))

    shares = popularity(log, split)
    yield dict.fromkeys(PROTOCOLS, Popularity(shares=shares))
    yield dict.fromkeys(PROTOCOLS, Markov(follows=transitions(log, split), shares=shares))
    listened = listeners(log, split)
    most = min(max(KNN_NEIGHBOURS), _NEIGHBOURS_IN_ALL // len(log.tracks))
    widest = neighbours(listened, keep=most)
    knn = [
        ItemKnn(neighbours=near, decay=decay, own_weight=weight, shares=shares)
        for near in (nearest(widest, keep=min(KNN_NEIGHBOURS)), widest)
        for decay, weight in product(KNN_DECAYS, KNN_OWN_WEIGHTS)
    ]
    # In discovery, where the user's own tracks are no candidates, their weight changes nothing.
    yield {"discovery": best(knn[:: len(KNN_OWN_WEIGHTS)], "discovery"), "replay": best(knn, "replay")}
    if len(log.tracks) <= EASE_TRACKS:
        ease = [Ease(weights=ease_weights(listened, ridge=ridge), shares=shares) for ridge in EASE_RIDGES]
        yield {protocol: best(ease, protocol) for protocol in PROTOCOLS}


def rank_floor(
    floor: Floor, log: InteractionLog, examples: Examples, *, advance: Callable[[int], None] = lambda _: None
) -> dict[str, Ranked]:
    """offline.ranking.rank.rank under all protocols."""
    ranked: dict[str, Ranked] = {}
    for scorer in dict.fromkeys(floor.values()):
        own = [protocol for protocol in PROTOCOLS if floor[protocol] is scorer]
        ranked |= rank(scorer, log, examples, protocols=own, advance=advance)
    return ranked


def popularity(log: InteractionLog, split: Split) -> Float32:
    """(tracks,) share of each of the targets in the training part; -inf for tracks without a usable listen there."""
    learned, tracks = in_training(log, split), len(log.tracks)
    counts = np.bincount(log.track[learned & IS_TARGET[log.signal]], minlength=tracks)
    known = np.bincount(log.track[learned & IS_USABLE[log.signal]], minlength=tracks) > 0
    return np.where(known, counts / max(1, counts.sum()), -np.inf).astype(np.float32)


def transitions(log: InteractionLog, split: Split) -> Sparse:
    """(tracks, tracks) how often a usable listen of the column follows one of the row in the training part."""
    positions = np.flatnonzero(in_training(log, split) & IS_USABLE[log.signal])
    users, tracks = log.user_of(positions), log.track[positions]
    same = users[1:] == users[:-1]
    pairs = tracks[:-1][same], tracks[1:][same]
    return sparse.csr_array((np.ones(same.sum(), np.float32), pairs), shape=(len(log.tracks),) * 2)


def listeners(log: InteractionLog, split: Split) -> Sparse:
    """(users, tracks) of 1 where a usable listen is among the newest of the user's training part."""
    everybody = np.arange(len(log.users))
    held = _histories(log, everybody, split.train_end, weight=lambda age: age < _TOGETHER_LISTENS)
    held.data[:] = 1.0
    return held


def neighbours(listened: Sparse, *, keep: int, block_pairs: int = _BLOCK_PAIRS) -> Sparse:
    """(tracks, tracks) the cosine of each track with the `keep` most similar ones, itself not among them.

    Args:
        listened: (users, tracks) of 0 and 1.
        keep: how many of each.
        block_pairs: about how many pairs of tracks are looked at at a time.
    """
    count = listened.shape[1]
    lengths = np.sqrt(listened.sum(axis=0))
    of_track = listened.T.tocsr()
    rows, blocks = max(1, block_pairs // max(1, count)), []
    for start in range(0, count, rows):
        pairs = (of_track[start : start + rows] @ listened).tocoo()
        row, column = pairs.coords
        pairs.data /= lengths[row + start] * lengths[column]
        pairs.data[row + start == column] = 0.0
        blocks.append(nearest(pairs, keep=keep))
    return sparse.vstack(blocks, format="csr")


def nearest(similar: Sparse, *, keep: int) -> Sparse:
    """The `keep` largest values above 0 of each row; of equal ones, the first."""
    pairs = similar.tocoo()
    row, column = pairs.coords
    order = np.lexsort([column, -pairs.data, row])
    row, column, data = row[order], column[order], pairs.data[order]
    kept = (np.arange(len(row)) - np.searchsorted(row, row) < keep) & (data > 0)
    return sparse.csr_array((data[kept].astype(np.float32), (row[kept], column[kept])), shape=pairs.shape)


def ease_weights(listened: Sparse, *, ridge: float) -> Float32:
    """(tracks, tracks) weights of EASE in closed form.

    Args:
        listened: (users, tracks) of 0 and 1.
        ridge: added to the diagonal of the tracks' Gram matrix.
    """
    gram = (listened.T @ listened).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights.astype(np.float32)


def _histories(
    log: InteractionLog,
    users: NDArray[np.integer],
    ends: Int64,
    *,
    weight: Callable[[Int64], NDArray[np.generic]],
) -> Sparse:
    """(n, tracks) sums of the weights of the usable events of histories; weight of (events,) ages, the newest 0."""
    rows, positions = spans(log.offsets[users], ends)
    usable = IS_USABLE[log.signal[positions]]
    rows, positions = rows[usable], positions[usable]
    ages = np.cumsum(np.bincount(rows, minlength=len(users)))[rows] - np.arange(len(rows)) - 1
    weights = np.asarray(weight(ages), np.float32)
    counts = weights > 0
    cells = rows[counts], np.asarray(log.track[positions[counts]])
    return sparse.csr_array((weights[counts], cells), shape=(len(users), len(log.tracks)))


def _tie_broken(scores: Float32, shares: Float32) -> Float32:
    return (scores + _TIE_BREAK * shares / max(np.float32(1e-9), shares.max())).astype(np.float32, copy=False)


def _sample(positions: Int64, *, seed: int) -> Int64:
    if len(positions) <= _VALIDATION_EXAMPLES:
        return positions
    return np.sort(np.random.default_rng(seed).choice(positions, _VALIDATION_EXAMPLES, replace=False))


def _ndcg(scorer: Scorer, log: InteractionLog, examples: Examples, protocol: str) -> float:
    counted = examples.slices(protocol)["all"]
    ranked = rank(scorer, log, examples, protocols=(protocol,))[protocol]
    values = ranked.values()[counted, METRICS.index(f"ndcg_at_{LIST_LENGTH}")]
    return float(values.mean()) if len(values) else 0.0
