"""Training a genre head from what musicnn heard in labelled tracks: nested folds, then a head of all tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.errors import SettingsError
from models.features import feature_width
from models.genre import GenreHead
from offline.genre.calibration import calibrate, measure, out_of_fold
from offline.genre.kinds import NETWORK
from offline.genre.machine import Float64, Int64, choose, fit
from offline.genre.settings import GenreTraining

Features = Mapping[str, NDArray[np.float32]]
"""Of a track: vectors by the names of features (models.features, or `embedding`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A head and how well its kind does.

    Attributes:
        head: trained on every track that has its inputs.
        gamma: chosen of settings.gammas.
        ridge: chosen of settings.ridges.
        metrics: as offline.genre.calibration.measure gives them; those of a plain head begin with `plain_`.
    """

    head: GenreHead
    gamma: float
    ridge: float
    metrics: dict[str, float]


def train(settings: GenreTraining, *, tracks: Sequence[Features], labels: Int64, artists: Int64) -> Trained:
    """Train a head: the same from the same data on the same machine, bit for bit.

    Some inputs are not known of every track, such as an embedding from listeners. A head with such inputs learns from
    the tracks that have them, and brings a plain head along, which learns from all tracks by the other inputs. In
    service, the plain head decides on tracks that lack one.

    Args:
        settings: what can be set.
        tracks: what is known of each.
        labels: (tracks,) class numbers.
        artists: (tracks,) numbers; no fold divides an artist.

    Raises:
        SettingsError: a class has no track, there are too few artists for the folds, or the tracks lack an input.
    """
    heard = tuple(block for block in settings.inputs if feature_width(block.name))
    if heard in ((), settings.inputs):
        return _train(settings, tracks, labels, artists)
    plain = _train(msgspec.structs.replace(settings, inputs=heard), tracks, labels, artists)
    whole = np.array([all(block.name in track for block in settings.inputs) for track in tracks])
    of_whole = [track for track, is_whole in zip(tracks, whole.tolist(), strict=True) if is_whole]
    full = _train(settings, of_whole, labels[whole], artists[whole])
    metrics = full.metrics | {f"plain_{name}": value for name, value in plain.metrics.items()}
    return replace(full, head=replace(full.head, plain=plain.head), metrics=metrics)


def _train(settings: GenreTraining, tracks: Sequence[Features], labels: Int64, artists: Int64) -> Trained:
    """A head without another."""
    _check(settings, labels, artists)
    features, tags = track_features(settings, tracks), _side_by_side([f"{NETWORK}.taggram.mean"], tracks)
    with threadpool_limits(1):  # the sums of linear algebra depend on the number of threads
        unheard = out_of_fold(settings, features, labels, artists, tags=tags)
        gamma, ridge = choose(settings, features, labels, artists, seed=settings.seed)
        head = fit(settings, features, labels, artists, gamma=gamma, ridge=ridge)
    head = calibrate(settings, head, unheard, labels)
    return Trained(head=head, gamma=gamma, ridge=ridge, metrics=measure(head, unheard, labels, artists))


def track_features(settings: GenreTraining, tracks: Sequence[Features]) -> Float64:
    """(tracks, columns): what the head hears of each track, the blocks of settings.inputs side by side."""
    return _side_by_side([block.name for block in settings.inputs], tracks)


def _side_by_side(names: Sequence[str], tracks: Sequence[Features]) -> Float64:
    for track in tracks:
        if missing := set(names) - track.keys():
            raise SettingsError(f"tracks have no input {missing.pop()}; choose from {', '.join(track)}")
    return np.stack([np.concatenate([track[name] for name in names]) for track in tracks]).astype(np.float64)


def _check(settings: GenreTraining, labels: Int64, artists: Int64) -> None:
    if absent := set(range(len(settings.classes))) - set(labels.tolist()):
        raise SettingsError(
            f"no track is of the genre {settings.classes[min(absent)]}; add some, or leave the genre out"
        )
    if (many := len(set(artists.tolist()))) < 2 * settings.folds:
        raise SettingsError(
            f"{many} artists are too few for {settings.folds} folds; give at least {2 * settings.folds}"
        )
