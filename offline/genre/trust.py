"""How far the probabilities of a genre head can be trusted: reliability, and risk against coverage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.genre import GenreHead
from offline.genre.calibration import OutOfFold, spoken_against
from offline.genre.machine import Float64, Labels
from offline.genre.score import wilson

BINS = 10
_MOST_POINTS = 100


class Bin(NamedTuple):
    """Guesses of about one probability.

    Attributes:
        said: their mean probability.
        right: share of them that is right.
        low, high: 95 % interval of that share (Wilson), over the tracks.
        share: of all guesses.
    """

    said: float
    right: float
    low: float
    high: float
    share: float


class Trust(NamedTuple):
    """What can be expected of a head's probabilities, on tracks of artists that it never heard.

    Attributes:
        reliability: the bins of equal width that are not empty, the least probability first.
        ece: expected calibration error: how far said and right of a bin are apart, a mean over all guesses (Guo et
            al., On Calibration of Modern Neural Networks, ICML 2017, equation 5).
        risk_coverage: (share of the tracks that is answered, share of these answers that is wrong), as the least
            confidence falls (El-Yaniv & Wiener, On the Foundations of Noise-free Selective Classification, JMLR 2010).
            Empty for a head of several labels, each of which has a threshold of its own.
    """

    reliability: tuple[Bin, ...]
    ece: float
    risk_coverage: tuple[tuple[float, float], ...]


def trust(head: GenreHead, unheard: OutOfFold, labels: Labels) -> Trust:
    """Hold what a head says of tracks against the truth.

    Of a head of one genre a track, the best guess of each track counts; of one of several labels, each label of each
    track.

    Args:
        head: calibrated.
        unheard: what heads of its kind say about the tracks of artists that they were not trained on.
        labels: of these tracks.
    """
    probabilities = head.probabilities(unheard.decisions)
    repeats = len(probabilities)
    if labels.ndim == 2:
        said, right, curve = probabilities.ravel(), np.tile(labels, (repeats, 1, 1)).ravel(), ()
    else:
        said = probabilities.max(axis=2).ravel()
        right = (probabilities.argmax(axis=2) == labels).ravel()
        curve = risk_coverage(said, right, ~spoken_against(head, unheard).ravel())
    bins = reliability(said, right, repeats=repeats)
    return Trust(bins, expected_calibration_error(bins), curve)


def reliability(said: Float64, right: NDArray[np.bool_], *, repeats: int = 1) -> tuple[Bin, ...]:
    """The guesses in bins of equal width.

    Args:
        said: (guesses,) probabilities.
        right: (guesses,)
        repeats: how often each track is among them: the intervals are those of so many fewer.
    """
    places = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    bins = list[Bin]()
    for place in np.unique(places):
        within = places == place
        tracks = max(1, round(int(within.sum()) / repeats))
        share = float(right[within].mean())
        low, high = wilson(share * tracks, tracks)
        bins.append(Bin(float(said[within].mean()), share, low, high, float(within.mean())))
    return tuple(bins)


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """The mean over guesses of how far the bin's said and right are apart."""
    return float(sum(one.share * abs(one.said - one.right) for one in bins))


def risk_coverage(
    confidence: Float64, right: NDArray[np.bool_], asked: NDArray[np.bool_]
) -> tuple[tuple[float, float], ...]:
    """Coverage and risk where the surest guesses are answered, of a hundred numbers of them.

    Args:
        confidence: (guesses,)
        right: (guesses,)
        asked: (guesses,) those that nothing but their confidence can keep from being answered.
    """
    surest_first = np.argsort(-confidence, kind="stable")
    right = right[surest_first[asked[surest_first]]]
    numbers = np.unique(np.linspace(1, len(right), min(len(right), _MOST_POINTS)).round().astype(np.int64))
    wrong = np.cumsum(~right)[numbers - 1] / numbers
    return tuple(zip((numbers / len(confidence)).tolist(), wrong.tolist(), strict=True))
