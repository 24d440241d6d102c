"""Training the genre head from labelled taggrams; reads top to bottom: what can be set, `run`, its steps.

The support vector machine is the least-squares one (Suykens & Vandewalle, Least Squares Support Vector
Machine Classifiers, Neural Processing Letters 9, 1999), one genre against the others: scikit-learn's
KernelRidge on the centred labels. With the same features, kernel and track weights, in folds that no artist
spans, it is right for .81 of the 443 tracks of the default release; a hinge for .79, one genre against the
others, and for .78 between pairs of genres as in scikit-learn's SVC. A few artists fill half of some genres; a
squared loss hangs less on which of their tracks become support vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track as progress
from scipy.optimize import minimize_scalar
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from models.errors import SettingsError
from models.genre import GenreHead, taggram_features

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

GTZAN_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


@dataclass(frozen=True, kw_only=True)
class GenreTraining:
    """What can be set; the defaults made the default release.

    Figures are nested accuracies on its 443 tracks, .807 for the defaults; their standard error over artists is
    .037, that of a difference about .01.
    """

    classes: tuple[str, ...] = GTZAN_GENRES

    inputs: tuple[tuple[str, float], ...] = (("msd.taggram.mean", 1 / 3),)
    """Features of a window, and the exponent that their values are raised to.

    With the spread beside the mean .798, the spread alone .754. Exponent 1/2 .806, 1 .802: cube roots tell
    non-music best from music (by distance 13 of 18 generated noises, square roots 8).
    """

    patch_step: int = 3
    """Every third patch: the file's patches are 61 frames apart, those that workers hear 187. All patches .803."""

    max_components: int = 128
    """Of the PCA: as many as this, the columns or the tracks, whichever is least."""

    gammas: tuple[float, ...] = (0.1, 0.25, 0.5)
    """Of the RBF kernel, over the variance of the tracks in the space of the PCA: tried. From .03 on: .807 too."""

    ridges: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Weight of the regulariser of the machine: tried."""

    artist_power: float = 0.5
    """A track counts 1 / (tracks of its artist)^this, every genre the same in all. With 0 .800."""

    folds: int = 10
    inner_folds: int = 5
    repeats: int = 5
    """Outer folds, the folds within each that choose gamma and ridge, and how often all of it is drawn anew."""

    target_accuracy: float = 0.85
    """The head abstains below the confidence from which on the out-of-fold tracks are right this often."""

    near_share: float = 0.99
    """Share of the out-of-fold tracks that are not too far from the training tracks."""

    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """What heads that never heard a track's artist say about it: an array for each repeat.

    Attributes:
        decisions: (repeats, tracks, classes) decision values.
        distances: (repeats, tracks).
    """

    decisions: Float64
    distances: Float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A head and how well its kind does.

    Attributes:
        head: trained on every track.
        gamma: chosen of config.gammas.
        ridge: chosen of config.ridges.
        metrics: accuracy of the nested folds and its standard error over artists, share answered and its
            accuracy at the head's thresholds, log_loss.
    """

    head: GenreHead
    gamma: float
    ridge: float
    metrics: dict[str, float]


def run(config: GenreTraining, *, taggrams: tuple[NDArray[np.float32], ...], labels: Int64, artists: Int64) -> Trained:
    """Train a head: the same from the same data on the same machine, bit for bit.

    Args:
        config: what can be set.
        taggrams: (patches, 50) of each track, config.patch_step times as dense as those that workers hear.
        labels: (tracks,) class numbers.
        artists: (tracks,) numbers; no fold divides an artist.

    Raises:
        SettingsError: a class has no track, or there are too few artists for the folds.
    """
    _check(config, labels, artists)
    with threadpool_limits(1):  # the sums of linear algebra depend on the number of threads
        features = track_features(config, taggrams)
        found = out_of_fold(config, features, labels, artists)
        gamma, ridge = choose(config, features, labels, artists, seed=config.seed)
        head = fit(config, features, labels, artists, gamma=gamma, ridge=ridge)
    head = calibrate(config, head, found, labels)
    return Trained(head=head, gamma=gamma, ridge=ridge, metrics=measure(head, found, labels, artists))


def track_features(config: GenreTraining, taggrams: tuple[NDArray[np.float32], ...]) -> Float64:
    """(tracks, columns): what the head hears of each track."""
    names = [name for name, _ in config.inputs]
    rows: list[NDArray[np.float32]] = []
    for taggram in taggrams:
        found = taggram_features("msd", taggram[:: config.patch_step])
        if missing := set(names) - found.keys():
            raise SettingsError(f"taggrams do not give the input {missing.pop()}; choose from {', '.join(found)}")
        rows.append(np.concatenate([found[name] for name in names]))
    return np.stack(rows).astype(np.float64)


def out_of_fold(config: GenreTraining, features: Float64, labels: Int64, artists: Int64) -> OutOfFold:
    """Nested folds: in each, gamma and ridge are chosen, and the head trained, without the fold's artists."""
    decisions = np.empty((config.repeats, len(labels), len(config.classes)))
    distances = np.empty((config.repeats, len(labels)))
    work = [
        (repeat, train, test)
        for repeat in range(config.repeats)
        for train, test in folds(config.folds, labels, artists, seed=config.seed + repeat)
    ]
    console = Console(stderr=True)
    for repeat, train, test in progress(work, "Nested folds", console=console, transient=True):
        known = features[train], labels[train], artists[train]
        gamma, ridge = choose(config, *known, seed=config.seed + repeat)
        head = fit(config, *known, gamma=gamma, ridge=ridge)
        decisions[repeat, test], distances[repeat, test] = head.scores(features[test])
    return OutOfFold(decisions=decisions, distances=distances)


def folds(count: int, labels: Int64, artists: Int64, *, seed: int) -> Iterator[tuple[Int64, Int64]]:
    """Rows to train on and rows to test on, `count` times: every row is tested once, no artist is on both sides."""
    yield from StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, artists)


def choose(
    config: GenreTraining, features: Float64, labels: Int64, artists: Int64, *, seed: int
) -> tuple[float, float]:
    """The gamma and ridge of the grid that are right most often over inner folds; the first of equals."""
    grid = list(product(config.gammas, config.ridges))
    right = np.zeros(len(grid))
    for train, test in folds(config.inner_folds, labels, artists, seed=seed):
        for index, (gamma, ridge) in enumerate(grid):
            head = fit(config, features[train], labels[train], artists[train], gamma=gamma, ridge=ridge)
            right[index] += (head.scores(features[test])[0].argmax(axis=1) == labels[test]).sum()
    return grid[int(right.argmax())]


def fit(
    config: GenreTraining, features: Float64, labels: Int64, artists: Int64, *, gamma: float, ridge: float
) -> GenreHead:
    """Train on tracks and fold: a head that is not calibrated yet, and never abstains."""
    exponents = np.concatenate([np.full(features.shape[1] // len(config.inputs), power) for _, power in config.inputs])
    raised = np.sign(features) * np.abs(features) ** exponents
    scaler: Any = StandardScaler().fit(raised)
    components = min(config.max_components, *features.shape)
    pca: Any = PCA(components, svd_solver="full").fit(scaler.transform(raised))
    points = pca.transform(scaler.transform(raised))
    machine: Any = KernelRidge(kernel="rbf", gamma=gamma / pca.explained_variance_.sum(), alpha=ridge)  # pyright: ignore[reportArgumentType] (takes floats)
    targets = np.eye(len(config.classes))[labels] - 1 / len(config.classes)
    machine.fit(points, targets, sample_weight=track_weights(labels, artists, power=config.artist_power))
    projection = pca.components_.T / scaler.scale_[:, None]
    return GenreHead(
        classes=config.classes,
        inputs=tuple(name for name, _ in config.inputs),
        exponents=exponents,
        projection=projection,
        offset=-(scaler.mean_ @ projection + pca.mean_ @ pca.components_.T),
        vectors=points,
        weights=machine.dual_coef_,
        gamma=float(machine.gamma),
        temperature=1.0,
        min_confidence=0.0,
        max_distance=float(np.finfo(np.float64).max),
    )


def track_weights(labels: Int64, artists: Int64, *, power: float) -> Float64:
    """(tracks,) weights of mean 1: within a genre by 1 / (tracks of the artist)^power, and every genre the same."""
    weights = 1.0 / np.bincount(artists)[artists] ** power
    weights /= np.bincount(labels, weights)[labels]
    return weights / weights.mean()


def calibrate(config: GenreTraining, head: GenreHead, found: OutOfFold, labels: Int64) -> GenreHead:
    """Temperature and thresholds from what was found out of fold."""
    truth = np.tile(labels, len(found.decisions))
    decisions = found.decisions.reshape(len(truth), -1)
    best: Any = minimize_scalar(
        lambda log_t: log_loss(replace(head, temperature=float(np.exp(log_t))).probabilities(decisions), truth),
        bounds=(np.log(1e-3), np.log(1e3)),
        method="bounded",
    )
    head = replace(head, temperature=float(np.exp(best.x)))
    confidence = head.probabilities(decisions).max(axis=1)
    surest_first = np.argsort(-confidence, kind="stable")
    right = (decisions.argmax(axis=1) == truth)[surest_first]
    reached = np.flatnonzero(np.cumsum(right) / np.arange(1, len(right) + 1) >= config.target_accuracy)
    return replace(
        head,
        min_confidence=float(confidence[surest_first[reached[-1]]]) if len(reached) else 1.0,
        max_distance=float(np.quantile(found.distances, config.near_share)),
    )


def log_loss(probabilities: Float64, truth: Int64) -> float:
    """Mean of -log p(truth), in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-300)).mean())


def measure(head: GenreHead, found: OutOfFold, labels: Int64, artists: Int64) -> dict[str, float]:
    """How well heads of this kind do on artists that they never heard."""
    probabilities = head.probabilities(found.decisions)
    right = probabilities.argmax(axis=2) == labels
    answered = (probabilities.max(axis=2) >= head.min_confidence) & (found.distances <= head.max_distance)
    accuracy = right.mean()
    of_artist = np.bincount(artists, right.mean(axis=0) - accuracy)  # tracks of an artist are right or wrong together
    return {
        "accuracy": float(accuracy),
        "accuracy_standard_error": float(np.sqrt(np.square(of_artist).sum()) / len(labels)),
        "answered": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else 0.0,
        "log_loss": log_loss(probabilities.reshape(right.size, -1), np.tile(labels, len(right))),
    }


def _check(config: GenreTraining, labels: Int64, artists: Int64) -> None:
    if absent := set(range(len(config.classes))) - set(labels.tolist()):
        raise SettingsError(f"no track is of the genre {config.classes[min(absent)]}; add some, or leave the genre out")
    if (found := len(set(artists.tolist()))) < 2 * config.folds:
        raise SettingsError(f"{found} artists are too few for {config.folds} folds; give at least {2 * config.folds}")
