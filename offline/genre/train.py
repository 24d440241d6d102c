"""Training a genre head from what musicnn heard in labelled tracks: nested folds, then a head of all tracks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.errors import SettingsError
from models.features import feature_width
from models.genre import GenreHead
from offline.genre.calibration import calibrate, confusion, measure, measure_classes, measure_labels, out_of_fold
from offline.genre.kinds import NETWORK
from offline.genre.machine import Float64, Int64, Labels, choose, fit
from offline.genre.settings import HeadTraining
from offline.genre.several import answerable, calibrate_labels, keep_labels
from offline.genre.trust import Trust, trust

Features = Mapping[str, NDArray[np.float32]]
"""Of a track: vectors by the names of features (models.features, or `embedding`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A head and how well its kind does.

    Attributes:
        head: trained on every track.
        gamma: chosen of settings.gammas.
        ridge: chosen of settings.ridges.
        metrics: as offline.genre.calibration.measure or measure_labels gives them; those of the plain head begin with
            `plain_`.
        by_class: as offline.genre.calibration.measure_classes gives them.
        confusion: (classes, classes), as offline.genre.calibration.confusion gives it; None for several labels.
        trust: in the probabilities.
        unanswerable: labels that no threshold makes right often enough, and which the head leaves out.
        plain: the same of the plain head that it brings along; None where it brings none.
    """

    head: GenreHead
    gamma: float
    ridge: float
    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]]
    confusion: Int64 | None
    trust: Trust
    unanswerable: tuple[str, ...] = ()
    plain: Trained | None = None


def train(
    settings: HeadTraining,
    *,
    tracks: Sequence[Features],
    labels: Labels,
    artists: Int64,
    given: Collection[str] = (),
) -> Trained:
    """Train a head: the same from the same data on the same machine, bit for bit.

    Some inputs are not known of every track, such as an embedding from listeners. A head with such inputs learns from
    all tracks; where one lacks an input, the mean of the others' stands in for it. It brings a plain head along, which
    hears the other inputs alone. In service, the plain head decides on tracks that lack an input. So the figures, the
    temperature and the thresholds of each are those of the tracks that it decides on.

    Args:
        settings: what can be set.
        tracks: what is known of each.
        labels: (tracks,) class numbers, or (tracks, classes) True for each of several labels.
        artists: (tracks,) numbers; no fold divides an artist.
        given: inputs other than those of musicnn that every track has in service too: the plain head hears them.

    Raises:
        SettingsError: a class has no track, there are too few artists for the folds, the tracks lack an input, or no
            label can be answered.
    """
    heard = tuple(block for block in settings.inputs if feature_width(block.name) or block.name in given)
    full = _train(settings, tracks, labels, artists)
    if heard in ((), settings.inputs):
        return _answerable(settings, full)
    plain = _train(msgspec.structs.replace(settings, inputs=heard), tracks, labels, artists)
    metrics = full.metrics | {f"plain_{name}": value for name, value in plain.metrics.items()}
    return _answerable(settings, replace(full, metrics=metrics, plain=plain))


def _train(settings: HeadTraining, tracks: Sequence[Features], labels: Labels, artists: Int64) -> Trained:
    """A head without another, all of its labels kept."""
    features = track_features(settings, tracks)
    whole = np.asarray(np.isfinite(features).all(axis=1))
    _check(settings, labels, artists, whole=whole)
    tags = _side_by_side({f"{NETWORK}.taggram.mean": 0}, tracks) if settings.kinds else None
    with threadpool_limits(1):  # the sums of linear algebra depend on the number of threads
        unheard = out_of_fold(settings, features, labels, artists, whole=whole, tags=tags)
        gamma, ridge = choose(settings, features, labels, artists, seed=settings.seed)
        head = fit(settings, features, labels, artists, gamma=gamma, ridge=ridge)
    asked, of_asked = labels[whole], artists[whole]
    if head.several:
        head = calibrate_labels(settings, head, head.several, unheard, labels=asked)
        metrics = measure_labels(head, unheard, asked, of_asked)
    else:
        head = calibrate(settings, head, unheard, asked)
        metrics = measure(head, unheard, asked, of_asked)
    trusted = trust(head, unheard, asked)
    return Trained(
        head=head,
        gamma=gamma,
        ridge=ridge,
        metrics=metrics | {"ece": trusted.ece},
        by_class=measure_classes(head, unheard, asked, of_asked),
        confusion=None if head.several else confusion(unheard, asked),
        trust=trusted,
    )


def _answerable(settings: HeadTraining, trained: Trained) -> Trained:
    """Without the labels that neither head can answer; the plain head is a part of the other."""
    parts = [trained, *([trained.plain] if trained.plain else [])]
    rules = [part.head.several for part in parts if part.head.several]
    kept = np.any([answerable(rule) for rule in rules], axis=0) if rules else np.ones(len(settings.classes), np.bool_)
    out = tuple(name for name, is_kept in zip(settings.classes, kept.tolist(), strict=True) if not is_kept)
    full, *plain = (
        replace(
            part,
            head=keep_labels(part.head, kept),
            by_class={name: row for name, row in part.by_class.items() if name not in out},
            unanswerable=out,
        )
        for part in parts
    )
    return replace(full, head=replace(full.head, plain=plain[0].head), plain=plain[0]) if plain else full


def track_features(settings: HeadTraining, tracks: Sequence[Features]) -> Float64:
    """(tracks, columns): what the head hears of each track, the blocks of settings.inputs side by side.

    Where a track lacks a block that models.features does not know, such as an embedding, its columns are NaN.
    """
    widths = {block.name: 0 if feature_width(block.name) else block.width for block in settings.inputs}
    return _side_by_side(widths, tracks)


def _side_by_side(widths: Mapping[str, int], tracks: Sequence[Features]) -> Float64:
    """(tracks, columns) features by their names; one with a width may be missing, unless all tracks lack it."""
    for name, width in widths.items():
        lacking = [track for track in tracks if name not in track]
        if lacking and (not width or len(lacking) == len(tracks)):
            raise SettingsError(f"tracks have no input {name}; choose from {', '.join(lacking[0])}")
    rows = [
        np.concatenate([track.get(name, np.full(width, np.nan)) for name, width in widths.items()]) for track in tracks
    ]
    return np.stack(rows).astype(np.float64)


def _check(settings: HeadTraining, labels: Labels, artists: Int64, *, whole: NDArray[Any]) -> None:
    has = labels.any(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(settings.classes)) > 0
    if not has.all():
        raise SettingsError(
            f"no track is of the genre {settings.classes[int(has.argmin())]}; add some, or leave the genre out"
        )
    if labels.ndim == 2 and settings.kinds:
        raise SettingsError("kinds of music are asked where a track has one genre; leave them out: kinds=[]")
    inputs = ", ".join(block.name for block in settings.inputs)
    if (many := len(set(artists[whole].tolist()))) < 2 * settings.folds:
        raise SettingsError(
            f"{many} artists with {inputs} are too few for {settings.folds} folds; give at least {2 * settings.folds}"
        )
