"""What nested folds say about a genre head: its temperature, its thresholds, and how well its kind does.

In a nested fold, heads hear only tracks of artists that they were not trained on, as in service.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track as progress
from scipy.optimize import minimize_scalar

from models.genre import GenreHead, outvoted
from offline.genre.machine import Float64, Int64, choose, fit, folds, standard_error
from offline.genre.settings import GenreTraining


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """What heads say about the tracks of artists that they were not trained on.

    Attributes:
        decisions: (repeats, tracks, classes) decision values.
        distances: (repeats, tracks) from the training tracks.
        contradicted: (repeats, tracks) whether the tags or the nearest training tracks speak against the best guess.
    """

    decisions: Float64
    distances: Float64
    contradicted: NDArray[np.bool_]


def out_of_fold(
    settings: GenreTraining, features: Float64, labels: Int64, artists: Int64, *, tags: Float64
) -> OutOfFold:
    """Nested folds: in each, gamma and ridge are chosen, and the head trained, without the fold's artists.

    Args:
        settings: of the training.
        features: (tracks, columns).
        labels: (tracks,) class numbers.
        artists: (tracks,) numbers.
        tags: (tracks, tags) that the kinds of the settings are asked of.
    """
    decisions = np.empty((settings.repeats, len(labels), len(settings.classes)))
    distances = np.empty((settings.repeats, len(labels)))
    contradicted = np.empty(distances.shape, np.bool_)
    work = [
        (repeat, train, test)
        for repeat in range(settings.repeats)
        for train, test in folds(settings.folds, labels, artists, seed=settings.seed + repeat)
    ]
    console = Console(stderr=True)
    for repeat, train, test in progress(work, "Nested folds", console=console, transient=True):
        known = features[train], labels[train], artists[train]
        gamma, ridge = choose(settings, *known, seed=settings.seed + repeat)
        head = fit(settings, *known, gamma=gamma, ridge=ridge)
        decisions[repeat, test], distances[repeat, test], votes = head.scores(features[test])
        guesses = decisions[repeat, test].argmax(axis=1)
        contradicted[repeat, test] = outvoted(votes, guesses)
        if head.kinds:
            contradicted[repeat, test] |= head.kinds.contradict(tags[test], guesses)
    return OutOfFold(decisions=decisions, distances=distances, contradicted=contradicted)


def calibrate(settings: GenreTraining, head: GenreHead, unheard: OutOfFold, labels: Int64) -> GenreHead:
    """The head with the temperature and the thresholds that suit what was said about tracks of unheard artists.

    The least confidence is that from which on the target is reached among the guesses that nothing contradicts.
    """
    truth = np.tile(labels, len(unheard.decisions))
    decisions = unheard.decisions.reshape(len(truth), -1)
    best: Any = minimize_scalar(
        lambda log_t: log_loss(replace(head, temperature=float(np.exp(log_t))).probabilities(decisions), truth),
        bounds=(np.log(1e-3), np.log(1e3)),
        method="bounded",
    )
    head = replace(head, temperature=float(np.exp(best.x)))
    confidence = head.probabilities(decisions).max(axis=1)
    surest_first = np.argsort(-confidence, kind="stable")
    surest_first = surest_first[~unheard.contradicted.ravel()[surest_first]]
    right = (decisions.argmax(axis=1) == truth)[surest_first]
    reached = np.flatnonzero(np.cumsum(right) / np.arange(1, len(right) + 1) >= settings.target_accuracy)
    return replace(
        head,
        min_confidence=float(confidence[surest_first[reached[-1]]]) if len(reached) else 1.0,
        max_distance=float(np.quantile(unheard.distances, settings.near_share)),
    )


def log_loss(probabilities: Float64, truth: Int64) -> float:
    """Mean of -log p(truth), in nats, of probabilities (rows, classes) and class numbers (rows,)."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-300)).mean())


def measure(head: GenreHead, unheard: OutOfFold, labels: Int64, artists: Int64) -> dict[str, float]:
    """How well heads of this kind do on artists that they never heard.

    Returns:
        accuracy and its standard error over artists, the share that is answered at the head's thresholds and the
        accuracy on it, and log_loss in nats.
    """
    probabilities = head.probabilities(unheard.decisions)
    right = probabilities.argmax(axis=2) == labels
    answered = (probabilities.max(axis=2) >= head.min_confidence) & (unheard.distances <= head.max_distance)
    answered &= ~unheard.contradicted
    return {
        "accuracy": float(right.mean()),
        "accuracy_standard_error": standard_error(right.mean(axis=0), artists),
        "answered": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else 0.0,
        "log_loss": log_loss(probabilities.reshape(right.size, -1), np.tile(labels, len(right))),
    }
