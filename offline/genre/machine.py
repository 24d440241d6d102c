"""The machine of a genre head: standardise -> PCA -> RBF support vector machine, fitted and folded into a GenreHead.

Tracks have one genre each, and labels are (tracks,) class numbers; or several, and labels are (tracks, classes), True
for those that a track has. A genre stands against all others, with one of two losses on the same kernel and
track weights:

- least_squares: the least-squares support vector machine (Suykens & Vandewalle, Least Squares Support Vector Machine
  Classifiers, Neural Processing Letters 9, 1999).
- hinge: scikit-learn's SVC.

deploy/docs/tagging.md compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from models.errors import SettingsError
from models.features import feature_width
from models.genre import GenreHead
from models.label_rule import LabelRule, parent_of
from offline.genre.kinds import tag_kinds
from offline.genre.settings import HeadTraining

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Labels = NDArray[Any]
"""(tracks,) class numbers, or (tracks, classes) True for each label of a track."""


def fit(
    settings: HeadTraining, features: Float64, labels: Labels, artists: Int64, *, gamma: float, ridge: float
) -> GenreHead:
    """Train on tracks: a head that is not calibrated yet, and never abstains.

    Args:
        settings: of the training.
        features: (tracks, columns), the blocks of settings.inputs side by side; NaN where a track lacks a block, which
            then counts as the mean of the others' blocks.
        labels: of the tracks.
        artists: (tracks,) numbers.
        gamma: of the RBF kernel, to be divided by the variance of the tracks in the space of the PCA.
        ridge: weight of the regulariser.

    Raises:
        SettingsError: the features have other columns than the blocks.
    """
    exponents, weights = _by_column(settings, columns=features.shape[1])
    raised = np.sign(features) * np.abs(features) ** exponents
    scaler: Any = StandardScaler().fit(raised)
    weighted = np.nan_to_num(scaler.transform(raised), copy=False) * weights
    components = min(settings.max_components, *features.shape)
    pca: Any = PCA(components, svd_solver="full").fit(weighted)
    points = pca.transform(weighted)
    gamma /= float(pca.explained_variance_.sum())
    machine = {"least_squares": _least_squares, "hinge": _hinge}[settings.machine]
    of_track = track_weights(labels, artists, power=settings.artist_power)
    targets = labels.astype(np.float64) if labels.ndim == 2 else np.eye(len(settings.classes))[labels]
    dual, biases = machine(rbf_kernel(points, gamma=gamma), targets, of_track, ridge=ridge)
    projection = pca.components_.T * weights[:, None] / scaler.scale_[:, None]
    widths = [block.width for block in settings.inputs]
    return GenreHead(
        classes=settings.classes,
        inputs=tuple(block.name for block in settings.inputs),
        exponents=exponents,
        projection=projection,
        offset=-(scaler.mean_ @ projection + pca.mean_ @ pca.components_.T),
        vectors=points,
        labels=labels.astype(np.int64) if labels.ndim == 1 else np.zeros(len(labels), np.int64),
        weights=dual,
        biases=biases,
        gamma=gamma,
        temperature=1.0,
        min_confidence=0.0,
        max_distance=float(np.finfo(np.float64).max),
        kinds=tag_kinds(settings.kinds, settings.classes),
        several=_uncalibrated(settings.classes) if labels.ndim == 2 else None,
        widths=() if all(feature_width(block.name) for block in settings.inputs) else tuple(widths),
    )


def _uncalibrated(classes: Sequence[str]) -> LabelRule:
    """Labels as their names say that they are within each other, all of them answered."""
    parents = [classes.index(parent) if (parent := parent_of(name)) in classes else -1 for name in classes]
    ones = np.ones(len(classes))
    return LabelRule(parents=np.array(parents), slopes=ones, intercepts=0.0 * ones, thresholds=1e-9 * ones)


def _least_squares(kernel: Float64, targets: Float64, weights: Float64, *, ridge: float) -> tuple[Float64, Float64]:
    """The weights of the vectors (tracks, classes) and the biases (classes,): one symmetric system of equations.

    Args:
        kernel: (tracks, tracks).
        targets: (tracks, classes) 1 for the genre of a track, else 0.
        weights: (tracks,) of the squared errors.
        ridge: weight of the regulariser.
    """
    tracks = len(kernel)
    system = np.ones((tracks + 1, tracks + 1))
    system[:tracks, :tracks] = kernel + np.diag(ridge / weights)
    system[tracks, tracks] = 0.0
    solution = solve(system, np.vstack([targets, np.zeros(targets.shape[1])]), assume_a="sym")
    return solution[:tracks], solution[tracks]


def _hinge(kernel: Float64, targets: Float64, weights: Float64, *, ridge: float) -> tuple[Float64, Float64]:
    """As _least_squares; `weights` are of the hinge losses, and most vectors get the weight 0."""
    dual, biases = np.zeros_like(targets), np.empty(targets.shape[1])
    for genre, of_genre in enumerate(targets.T):
        machine: Any = SVC(kernel="precomputed", C=1 / ridge).fit(kernel, of_genre, sample_weight=weights)
        dual[machine.support_, genre], biases[genre] = machine.dual_coef_[0], machine.intercept_[0]
    return dual, biases


def _by_column(settings: HeadTraining, *, columns: int) -> tuple[Float64, Float64]:
    """(columns,) exponents and (columns,) weights: each block's, for as many columns as it is wide."""
    blocks = settings.inputs
    widths = [block.width for block in blocks]
    if sum(widths) != columns:
        described = ", ".join(f"{block.name} ({block.width})" for block in blocks)
        raise SettingsError(f"the features have {columns} columns, the inputs {described} {sum(widths)}; give the same")
    exponents = np.array([block.exponent for block in blocks], np.float64)
    weights = np.array([block.weight for block in blocks], np.float64)
    return np.repeat(exponents, widths), np.repeat(weights, widths)


def track_weights(labels: Labels, artists: Int64, *, power: float) -> Float64:
    """(tracks,) weights of mean 1: within a genre by 1 / (tracks of the artist)^power, and every genre the same.

    A track of several genres has the sum of what it counts in each of them.
    """
    weights = 1.0 / np.bincount(artists)[artists] ** power
    if labels.ndim == 2:
        weights *= (labels / np.maximum(weights @ labels, 1e-300)).sum(axis=1)
    else:
        weights /= np.bincount(labels, weights)[labels]
    return weights / weights.mean()


def strata(labels: Labels) -> Int64:
    """(tracks,) a class number for each track: its genre, or the rarest of its labels."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    return np.where(labels, labels.sum(axis=0), len(labels) + 1).argmin(axis=1)


def folds(count: int, labels: Labels, artists: Int64, *, seed: int) -> Iterator[tuple[Int64, Int64]]:
    """Rows to train on and rows to test on, `count` times: every row is tested once, no artist is on both sides."""
    of_track = strata(labels)
    yield from StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(of_track, of_track, artists)


def rightness(decisions: Float, labels: Labels) -> Float64:
    """(tracks,) 0 to 1: whether the greatest decision value (tracks, classes) is that of the track's genre.

    Of several labels it is the average precision of the order in which the decision values put the labels (Schapire &
    Singer, BoosTexter, 2000): 1 where those of the track stand before all others.
    """
    if labels.ndim == 1:
        return (decisions.argmax(axis=1) == labels).astype(np.float64)
    order = np.argsort(-decisions, axis=1, kind="stable")
    hits = np.take_along_axis(labels, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, labels.shape[1] + 1)
    return (precision * hits).sum(axis=1) / labels.sum(axis=1)


def choose(
    settings: HeadTraining, features: Float64, labels: Labels, artists: Int64, *, seed: int
) -> tuple[float, float]:
    """Gamma and ridge of the settings by the one-standard-error rule, over the inner folds.

    Of the settings that are right (`rightness`) not less often than the best by more than the standard error of the
    difference, it is the smoothest: that with the least gamma, and of these the one with the greatest ridge. Tracks
    that lack a block are learned from, and not asked about.
    """
    grid = sorted(product(settings.gammas, settings.ridges), key=lambda pair: (pair[0], -pair[1]))
    if len(grid) == 1:
        return grid[0]
    whole = np.asarray(np.isfinite(features).all(axis=1))
    right = np.empty((len(grid), len(labels)))
    for train, test in folds(settings.inner_folds, labels, artists, seed=seed):
        if len(asked := test[whole[test]]):
            for index, (gamma, ridge) in enumerate(grid):
                head = fit(settings, features[train], labels[train], artists[train], gamma=gamma, ridge=ridge)
                right[index, asked] = rightness(head.scores(features[asked]).decisions, labels[asked])
    right, artists = right[:, whole], artists[whole]
    behind = right[right.mean(axis=1).argmax()] - right
    near = [difference.mean() <= standard_error(difference, artists) for difference in behind]
    return grid[near.index(True)]


def standard_error(values: Float64, artists: Int64) -> float:
    """Of the mean of values (tracks,), whose errors the tracks of an artist (tracks,) share."""
    of_artist = np.bincount(artists, values - values.mean())
    return float(np.sqrt(np.square(of_artist).sum()) / len(values))
