"""Whether an encoder finds the listeners of tracks that it has never heard, and the tracks of these listeners."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Float64 = NDArray[np.float64]

LIST_LENGTH = 10
_REPLICATES = 500
_TRACKS_AT_ONCE = 64


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A mean, and its 95 % interval by a bootstrap over what it is the mean of.

    Attributes:
        value: of n tracks or people; not a number where n is 0.
        low, high: of the interval.
        n: how many.
    """

    value: float
    low: float
    high: float
    n: int


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of cold-track retrieval. Among equals, what is looked for comes last; in an AUC they count half.

    Attributes:
        auc: of each track: the chance that somebody who liked it stands before somebody who did not.
        track_recall_at_10: of each track: of the 10 people at the top, the share who liked it; where fewer than 10 did,
            the share of these who are at the top.
        recall_at_10: of each person who liked a track: the same of the 10 tracks at the top.
        ndcg_at_10: likewise.
    """

    auc: Figure
    track_recall_at_10: Figure
    recall_at_10: Figure
    ndcg_at_10: Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class ColdTracks:
    """Tracks that were held out, and people, some of whom liked them.

    Attributes:
        tracks: (tracks,) places in the log's tracks.
        people: (people, dim) where they are, by the tracks that were not held out.
        liked: (people, tracks) bool.
        active: (people,) how many tracks they liked of those that were not held out.
    """

    tracks: NDArray[np.int64]
    people: NDArray[np.float32]
    liked: NDArray[np.bool_]
    active: NDArray[np.int64]

    def scores(self, places: NDArray[np.float32]) -> NDArray[np.float32]:
        """(people, tracks) cosines with (tracks, dim) places of the tracks."""
        return self.people @ places.T

    def popularity(self) -> NDArray[np.float32]:
        """(people, tracks): who likes much comes first, and what many liked, which of a new track nobody knows."""
        return np.outer(self.active + 1, self.liked.sum(axis=0)).astype(np.float32)

    def auc(self, scores: NDArray[np.float32]) -> Float64:
        """(tracks,) of the tracks that some of the people liked and others did not."""
        with_both = np.flatnonzero(self.liked.any(axis=0) & ~self.liked.all(axis=0))
        blocks = [with_both[first : first + _TRACKS_AT_ONCE] for first in range(0, len(with_both), _TRACKS_AT_ONCE)]
        return np.concatenate([_auc(scores[:, block], self.liked[:, block]) for block in blocks] or [np.zeros(0)])

    def measure(self, scores: NDArray[np.float32]) -> Retrieval:
        """The figures of (people, tracks) scores."""
        track_recall, _ = _top(scores.T, self.liked.T)
        recall, ndcg = _top(scores, self.liked)
        return Retrieval(
            auc=figure(self.auc(scores)),
            track_recall_at_10=figure(track_recall),
            recall_at_10=figure(recall),
            ndcg_at_10=figure(ndcg),
        )


def figure(values: Float64) -> Figure:
    """The mean of values (n,), with its interval."""
    if not len(values):
        return Figure(value=np.nan, low=np.nan, high=np.nan, n=0)
    rng = np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(_REPLICATES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Figure(value=float(values.mean()), low=float(low), high=float(high), n=len(values))


def _auc(scores: NDArray[np.float32], liked: NDArray[np.bool_]) -> Float64:
    """(columns,) by the rank sum of Mann and Whitney."""
    ranks, count = rankdata(scores, axis=0), liked.sum(axis=0)
    above = (ranks * liked).sum(axis=0) - count * (count + 1) / 2
    return above / (count * (len(scores) - count))


def _top(scores: NDArray[np.float32], liked: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Recall and NDCG at LIST_LENGTH of each row in which something is liked."""
    rows = np.flatnonzero(liked.any(axis=1))
    recall, ndcg = np.zeros(len(rows)), np.zeros(len(rows))
    gains = 1 / np.log2(np.arange(2, LIST_LENGTH + 2))
    for number, (of_row, wanted) in enumerate(zip(scores[rows], liked[rows], strict=True)):
        top = np.lexsort((wanted, -of_row))[:LIST_LENGTH]  # among equals, what is wanted comes last
        most = min(LIST_LENGTH, int(wanted.sum()))
        recall[number] = wanted[top].sum() / most
        ndcg[number] = (wanted[top] * gains[: len(top)]).sum() / gains[:most].sum()
    return recall, ndcg
