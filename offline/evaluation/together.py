"""Which tracks go together, or follow one another, in the training part of a log: sparse matrices of tracks x tracks.

Item kNN: Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001. EASE: Steck,
Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.history import IS_USABLE
from offline.interactions.log import InteractionLog, spans
from offline.interactions.splits import Split, in_training

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Sparse = Any
"""scipy.sparse.csr_array, whose products type checkers do not know."""

REACH = 10
"""The most listens from a track to one that counts as following it."""

_NEIGHBOURS_IN_ALL = 20_000_000  # 160 MB: a large catalogue keeps fewer of each track
_TOGETHER_LISTENS = 2000  # newest of a user that tell which tracks go together: the work grows with their square
_BLOCK_PAIRS = 4_000_000


def listeners(log: InteractionLog, split: Split) -> Sparse:
    """(users, tracks) of 1 where a usable listen is among the newest of the user's training part."""
    everybody = np.arange(len(log.users))
    held = weighted_histories(log, everybody, split.train_end, weight=lambda age: age < _TOGETHER_LISTENS)
    held.data[:] = 1.0
    return held


def neighbours(listened: Sparse, *, keep: int, block_pairs: int = _BLOCK_PAIRS) -> Sparse:
    """(tracks, tracks) the cosine of each track with the `keep` most similar ones, itself not among them.

    Args:
        listened: (users, tracks) of 0 and 1.
        keep: how many of each; fewer in a catalogue of more than 20,000 tracks.
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
        blocks.append(_nearest(pairs, keep=_most(count, keep)))
    return sparse.vstack(blocks, format="csr")


def transitions(
    log: InteractionLog, split: Split, *, decay: float, power: float, keep: int, block_pairs: int = _BLOCK_PAIRS
) -> Sparse:
    """(tracks, tracks) how much the track of the column follows that of the row in the histories of the training part.

    Each pair of usable listens of a user at a distance d of at most REACH counts decay ** (d - 1). Listens of one
    moment have no order: half of what they count goes in each direction.

    Args:
        log: the log.
        split: of it.
        decay: of what a pair counts, with the distance.
        power: columns are divided by their sum to this power, for a track that follows everything tells little.
        keep: how many followers of each track; fewer in a catalogue of more than 20,000 tracks.
        block_pairs: about how many pairs of listens are looked at at a time.
    """
    positions = np.flatnonzero(in_training(log, split) & IS_USABLE[log.signal])
    listens = log.user_of(positions), np.asarray(log.at[positions]), np.asarray(log.track[positions])
    count, track = len(log.tracks), listens[2]
    by_track = np.argsort(track, kind="stable")
    starts = np.searchsorted(track[by_track], np.arange(count + 1))
    sums = np.zeros(count)
    for first, end in _blocks(starts, most=max(1, block_pairs // (2 * REACH))):
        _, target, weights = _pairs(by_track[starts[first] : starts[end]], *listens, decay=decay)
        sums += np.bincount(target, weights, minlength=count)
    scale, blocks = np.maximum(sums, 1e-9) ** -power, []
    for first, end in _blocks(starts, most=max(1, block_pairs // (2 * REACH))):
        source, target, weights = _pairs(by_track[starts[first] : starts[end]], *listens, decay=decay)
        pairs = sparse.csr_array((weights * scale[target], (source - first, target)), shape=(end - first, count))
        blocks.append(_nearest(pairs, keep=_most(count, keep)))
    return sparse.vstack(blocks, format="csr")


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


def weighted_histories(
    log: InteractionLog, users: NDArray[np.integer], ends: Int64, *, weight: Callable[[Int64], NDArray[np.generic]]
) -> Sparse:
    """(n, tracks) sums of the weights of the usable listens of histories; weight of (listens,) ages, the newest 0."""
    rows, positions = spans(log.offsets[users], ends)
    usable = IS_USABLE[log.signal[positions]]
    rows, positions = rows[usable], positions[usable]
    ages = np.cumsum(np.bincount(rows, minlength=len(users)))[rows] - np.arange(len(rows)) - 1
    weights = np.asarray(weight(ages), np.float32)
    counts = weights > 0
    cells = rows[counts], np.asarray(log.track[positions[counts]])
    return sparse.csr_array((weights[counts], cells), shape=(len(users), len(log.tracks)))


def _pairs(
    places: Int64, user: Int64, at: Int64, track: NDArray[np.int32], *, decay: float
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Tracks of the listens at (n,) places of (listens,), tracks that follow them, and what these pairs count."""
    parts = []
    for distance in range(1, REACH + 1):
        for step in (distance, -distance):
            other = places + step
            here, other = (part[(other >= 0) & (other < len(user))] for part in (places, other))
            together = at[other] == at[here]
            counts = (user[other] == user[here]) & (together | (step > 0))
            weights = np.where(together[counts], 0.5, 1.0) * decay ** (distance - 1)
            parts.append((track[here[counts]], track[other[counts]], weights))
    source, target, weights = zip(*parts, strict=True)
    return np.concatenate(source), np.concatenate(target), np.concatenate(weights)


def _blocks(starts: Int64, *, most: int) -> Iterator[tuple[int, int]]:
    """Spans of tracks with at most so many listens, or of one track; the listens of a track begin at its start."""
    first, count = 0, len(starts) - 1
    while first < count:
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + most, side="right")) - 1)
        yield first, end
        first = end


def _most(tracks: int, keep: int) -> int:
    return min(keep, max(1, _NEIGHBOURS_IN_ALL // max(1, tracks)))


def _nearest(similar: Sparse, *, keep: int) -> Sparse:
    """The `keep` largest values above 0 of each row; of equal ones, the first."""
    pairs = similar.tocoo()
    row, column = pairs.coords
    order = np.lexsort([column, -pairs.data, row])
    row, column, data = row[order], column[order], pairs.data[order]
    kept = (np.arange(len(row)) - np.searchsorted(row, row) < keep) & (data > 0)
    return sparse.csr_array((data[kept].astype(np.float32), (row[kept], column[kept])), shape=pairs.shape)
