"""What nested folds say about a genre head: its temperature, its thresholds, and how well its kind does.

In a nested fold, heads hear only tracks of artists that they were not trained on, as in service.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from models.genre import GenreHead, outvoted
from offline.genre.machine import Float64, Int64, Labels, choose, fit, folds, rightness, standard_error
from offline.genre.settings import HeadTraining
from offline.progress import progress_bar


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
    settings: HeadTraining,
    features: Float64,
    labels: Labels,
    artists: Int64,
    *,
    whole: NDArray[np.bool_],
    tags: Float64 | None,
) -> OutOfFold:
    """Nested folds: in each, gamma and ridge are chosen, and the head trained, without the fold's artists.

    Args:
        settings: of the training.
        features: (tracks, columns), as offline.genre.machine.fit takes them.
        labels: of the tracks.
        artists: (tracks,) numbers.
        whole: (tracks,) those that lack no block; only these are asked about.
        tags: (tracks, tags) that the kinds of the settings are asked of; None where there are no kinds.

    Returns:
        What was said about the tracks that are whole.
    """
    decisions = np.empty((settings.repeats, len(labels), len(settings.classes)))
    distances = np.empty((settings.repeats, len(labels)))
    contradicted = np.zeros(distances.shape, np.bool_)
    work = [
        (repeat, train, asked)
        for repeat in range(settings.repeats)
        for train, test in folds(settings.folds, labels, artists, seed=settings.seed + repeat)
        if len(asked := test[whole[test]])
    ]
    with progress_bar() as bar:
        for repeat, train, asked in bar.track(work, description="Nested folds"):
            known = features[train], labels[train], artists[train]
            gamma, ridge = choose(settings, *known, seed=settings.seed + repeat)
            head = fit(settings, *known, gamma=gamma, ridge=ridge)
            decisions[repeat, asked], distances[repeat, asked], votes = head.scores(features[asked])
            guesses = decisions[repeat, asked].argmax(axis=1)
            if not head.several:
                contradicted[repeat, asked] = outvoted(votes, guesses)
            if head.kinds and tags is not None:
                contradicted[repeat, asked] |= head.kinds.contradict(tags[asked], guesses)
    return OutOfFold(decisions=decisions[:, whole], distances=distances[:, whole], contradicted=contradicted[:, whole])


def calibrate(settings: HeadTraining, head: GenreHead, unheard: OutOfFold, labels: Int64) -> GenreHead:
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


def answers(head: GenreHead, unheard: OutOfFold) -> NDArray[np.bool_]:
    """(repeats, tracks, classes) what the head answers at its thresholds."""
    probabilities = head.probabilities(unheard.decisions)
    answered = head.answered(probabilities)
    if not head.several:
        answered &= probabilities.argmax(axis=2)[..., None] == np.arange(len(head.classes))
    return answered & ~spoken_against(head, unheard)[..., None]


def spoken_against(head: GenreHead, unheard: OutOfFold) -> NDArray[np.bool_]:
    """(repeats, tracks) where the head abstains however sure it is."""
    return unheard.contradicted | (unheard.distances > head.max_distance)


def measure(head: GenreHead, unheard: OutOfFold, labels: Int64, artists: Int64) -> dict[str, float]:
    """How well heads of this kind do on artists that they never heard.

    Returns:
        accuracy and its standard error over artists, the share that is answered at the head's thresholds and the
        accuracy on it, and log_loss in nats.
    """
    probabilities = head.probabilities(unheard.decisions)
    right = probabilities.argmax(axis=2) == labels
    answered = answers(head, unheard).any(axis=2)
    return {
        "accuracy": float(right.mean()),
        "accuracy_standard_error": standard_error(right.mean(axis=0), artists),
        "answered": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else 0.0,
        "log_loss": log_loss(probabilities.reshape(right.size, -1), np.tile(labels, len(right))),
    }


def measure_labels(head: GenreHead, unheard: OutOfFold, labels: NDArray[np.bool_], artists: Int64) -> dict[str, float]:
    """The same where tracks have several labels.

    Returns:
        ranking (offline.genre.machine.rightness) and its standard error over artists, the share of the tracks that are
        answered with a label, how many of the labels that are answered are right (precision), how many of those that
        tracks have are answered (recall), and log_loss, the mean over labels in nats.
    """
    probabilities, given = head.probabilities(unheard.decisions), answers(head, unheard)
    ranking = np.mean([rightness(of_repeat, labels) for of_repeat in probabilities], axis=0)
    right, said = given & labels, np.where(labels, probabilities, 1.0 - probabilities)
    return {
        "ranking": float(ranking.mean()),
        "ranking_standard_error": standard_error(ranking, artists),
        "answered": float(given.any(axis=2).mean()),
        "precision": float(right.sum() / max(1, given.sum())),
        "recall": float(right.sum() / (len(given) * labels.sum())),
        "log_loss": float(-np.log(np.maximum(said, 1e-300)).mean()),
    }


def measure_classes(head: GenreHead, unheard: OutOfFold, labels: Labels, artists: Int64) -> dict[str, dict[str, float]]:
    """For each class: its tracks and their artists, how often it is answered, and how often that is right.

    Returns:
        tracks, artists, answered (share of all tracks that get this answer), precision (0 where it is never answered)
        and recall, by the name of the class.
    """
    given = answers(head, unheard)
    of_class = labels if labels.ndim == 2 else labels[:, None] == np.arange(len(head.classes))
    right = (given & of_class).sum(axis=(0, 1))
    said, possible = given.sum(axis=(0, 1)), len(given) * of_class.sum(axis=0)
    return {
        name: {
            "tracks": int(of_class[:, number].sum()),
            "artists": len(set(artists[of_class[:, number]].tolist())),
            "answered": float(given[..., number].mean()),
            "precision": float(right[number] / max(1, said[number])),
            "recall": float(right[number] / max(1, possible[number])),
        }
        for number, name in enumerate(head.classes)
    }


def confusion(unheard: OutOfFold, labels: Int64) -> Int64:
    """(classes, classes) tracks of the row's genre whose best guess was the column's, over all repeats."""
    classes = unheard.decisions.shape[2]
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.tile(labels, len(unheard.decisions)), unheard.decisions.argmax(axis=2).ravel()), 1)
    return counts
