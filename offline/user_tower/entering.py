"""Tracks without a learned vector that enter histories and rankings by their sound, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.user_tower import newest_known
from offline.features.held_out import Part
from offline.interactions.log import InteractionLog
from offline.ranking.embeddings import catalogue_scores, histories
from offline.ranking.examples import Examples, draw_users
from offline.ranking.intervals import Bootstrap, interval, leaf
from offline.ranking.rank import METRICS, rank
from offline.user_tower.data import TrainingData
from offline.user_tower.networks import Items, Tower
from offline.user_tower.scorer import NetworkScorer

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

_REPLICATES = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Sounds:
    """Where an audio encoder places the tracks of a log, and which of them the tower has no vector of.

    Attributes:
        places: (tracks, dim) float32 of unit norm; zeros where the sound of a track is not known.
        known: (tracks,) whether it is.
        parts: (tracks,) codes of Part: what of the tracks is held out.
    """

    places: NDArray[np.float32]
    known: Bool
    parts: Int64


class Entering:
    """A catalogue of learned vectors and, behind them, sounds: as workers and readers of a release see it.

    Args:
        data: of the training, whose items have the learned vectors.
        vectors: (items, dim) of them.
        sounds: of the tracks of the log.
        entering: (tracks,) which tracks may enter by their sound, where they have no learned vector.
        no_history: (dim,) the embedding of a history without a usable listen.

    Attributes:
        row_of: (tracks,) places of tracks in the catalogue, -1 where there is none.
        by_sound: (tracks,) which of them enter by their sound.
    """

    def __init__(self, data: TrainingData, vectors: Tensor, sounds: Sounds, entering: Bool, no_history: Tensor) -> None:
        self.by_sound = entering & sounds.known & (data.row_of < 0)
        self.row_of = data.row_of.copy()
        self.row_of[self.by_sound] = len(vectors) + np.arange(self.by_sound.sum())
        more = torch.from_numpy(sounds.places[self.by_sound]).to(vectors)
        self._data = data
        self._items = Items(torch.cat([vectors, more]), sparse=False, unit_norm=False).requires_grad_(False)
        self._no_history = no_history

    def scorer(self, tower: Tower) -> NetworkScorer:
        """The scores of a tower whose histories and candidates are these tracks."""
        data = replace(self._data, row_of=self.row_of)
        return NetworkScorer(data, tower, self._items, no_history=self._no_history)

    def scorer_of_sounds(self, tower: Tower) -> SoundAlone:
        """The same, with people placed by the tracks alone that enter by their sound."""
        heard = replace(self._data, row_of=np.where(self.by_sound, self.row_of, -1))
        return SoundAlone(NetworkScorer(heard, tower, self._items, no_history=self._no_history), self.row_of)


class SoundAlone:
    """A scorer (offline.ranking.rank.Scorer) that hears fewer tracks of a history than it ranks."""

    name = "sound alone"

    def __init__(self, people: NetworkScorer, row_of: Int64) -> None:
        self._people, self._row_of = people, row_of

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> NDArray[np.float32]:  # noqa: ARG002
        """(n, tracks) as Scorer says."""
        embeddings = self._people.embed(users, ends).cpu().numpy()
        return catalogue_scores(embeddings, self._people.vectors.cpu().numpy(), self._row_of)


def recalls(
    data: TrainingData, entering: Entering, sounds: Sounds, towers: dict[str, Tower], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Recall@10 of the test in discovery: of each slice n, what each tower reaches, and the last's lead on the first.

    The slices are `warm`, targets with a learned vector; `cold`, targets that are held out and enter by their sound;
    and `sound_alone`, the warm targets again, of people who are placed by their listens of tracks without a learned
    vector. All tracks are candidates in each of them.

    Args:
        data: of the training.
        entering: the catalogue.
        sounds: of its tracks.
        towers: by name, in eval mode.
        seed: of the users that are drawn where a test is long, and of the intervals.
    """
    examples = Examples.of(data.log, data.split, draw_users(data.log, data.split.test, seed=seed))
    counted, at = examples.slices("discovery")["all"], METRICS.index("recall_at_10")
    warm = counted & (data.row_of[examples.targets] >= 0)
    cold = counted & (sounds.parts[examples.targets] == Part.TEST) & entering.by_sound[examples.targets]
    slices = {"warm": warm, "cold": cold, "sound_alone": warm & _hears_sounds(data, entering, examples)}
    found = {}
    for name, tower in towers.items():
        both = [
            rank(scorer, data.log, examples, protocols=("discovery",))["discovery"].values()[:, at]
            for scorer in (entering.scorer(tower), entering.scorer_of_sounds(tower))
        ]
        found[name] = {"warm": both[0], "cold": both[0], "sound_alone": both[1]}
    bootstrap = Bootstrap(examples.users, replicates=_REPLICATES, seed=seed)
    return {name: _figures(bootstrap, mask, {t: found[t][name] for t in towers}) for name, mask in slices.items()}


def _hears_sounds(data: TrainingData, entering: Entering, examples: Examples) -> Bool:
    """(n,) whether a usable listen of a history is of a track that enters by its sound."""
    row_of, history = np.where(entering.by_sound, entering.row_of, -1), data.settings.history
    heard = histories(data.log, row_of, examples.users, examples.ends, history=history)
    return newest_known(*heard, history=history)[3]


def _figures(bootstrap: Bootstrap, mask: Bool, values: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Of a slice: n, the mean of each tower with its interval, and the difference of the last and the first."""
    count = int(mask.sum())
    if not count:
        return {"n": 0}
    columns = np.column_stack(list(values.values()))
    means, replicates = columns[mask].mean(axis=0), bootstrap.means(columns, {"all": mask})["all"]
    figures = {
        name: leaf(float(mean), n=count, replicates=of_tower)
        for name, mean, of_tower in zip(values, means, replicates.T, strict=True)
    }
    difference = float(means[-1] - means[0])
    low, high = interval(difference, replicates[:, -1] - replicates[:, 0])
    return {"n": count, **figures, "difference": {"value": difference, "low": low, "high": high}}
