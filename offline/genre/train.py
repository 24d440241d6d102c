"""Training a genre head from labelled taggrams: what nested folds say, then a head of every track."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.errors import SettingsError
from models.features import taggram_features
from models.genre import GenreHead
from offline.genre.calibration import calibrate, measure, out_of_fold
from offline.genre.machine import Float64, Int64, choose, fit
from offline.genre.settings import GenreTraining


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A head and how well its kind does.

    Attributes:
        head: trained on every track.
        gamma: chosen of settings.gammas.
        ridge: chosen of settings.ridges.
        metrics: as offline.genre.calibration.measure gives them.
    """

    head: GenreHead
    gamma: float
    ridge: float
    metrics: dict[str, float]


def train(
    settings: GenreTraining, *, taggrams: tuple[NDArray[np.float32], ...], labels: Int64, artists: Int64
) -> Trained:
    """Train a head: the same from the same data on the same machine, bit for bit.

    Args:
        settings: what can be set.
        taggrams: (patches, 50) of each track, settings.patch_step times as dense as those that workers hear.
        labels: (tracks,) class numbers.
        artists: (tracks,) numbers; no fold divides an artist.

    Raises:
        SettingsError: a class has no track, there are too few artists for the folds, or taggrams do not give an input.
    """
    _check(settings, labels, artists)
    with threadpool_limits(1):  # the sums of linear algebra depend on the number of threads
        features = track_features(settings, taggrams)
        unheard = out_of_fold(settings, features, labels, artists)
        gamma, ridge = choose(settings, features, labels, artists, seed=settings.seed)
        head = fit(settings, features, labels, artists, gamma=gamma, ridge=ridge)
    head = calibrate(settings, head, unheard, labels)
    return Trained(head=head, gamma=gamma, ridge=ridge, metrics=measure(head, unheard, labels, artists))


def track_features(settings: GenreTraining, taggrams: tuple[NDArray[np.float32], ...]) -> Float64:
    """(tracks, columns): what the head hears of each track, the blocks of settings.inputs side by side."""
    names = [block.name for block in settings.inputs]
    rows: list[NDArray[np.float32]] = []
    for taggram in taggrams:
        features = taggram_features("msd", taggram[:: settings.patch_step])
        if missing := set(names) - features.keys():
            raise SettingsError(f"taggrams do not give the input {missing.pop()}; choose from {', '.join(features)}")
        rows.append(np.concatenate([features[name] for name in names]))
    return np.stack(rows).astype(np.float64)


def _check(settings: GenreTraining, labels: Int64, artists: Int64) -> None:
    if absent := set(range(len(settings.classes))) - set(labels.tolist()):
        raise SettingsError(
            f"no track is of the genre {settings.classes[min(absent)]}; add some, or leave the genre out"
        )
    if (many := len(set(artists.tolist()))) < 2 * settings.folds:
        raise SettingsError(
            f"{many} artists are too few for {settings.folds} folds; give at least {2 * settings.folds}"
        )
