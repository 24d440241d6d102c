"""How often a recipe is right: the work that processes do, a recipe each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from offline.genre.machine import choose, fit, folds
from offline.genre.settings import Block, HeadTraining
from offline.spread import Files

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

MAX_POOL = "msd.max_pool"
FOLDS, SPLITS = "right.npy", "right-of-splits.npy"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """What a head hears.

    Attributes:
        name: of the recipe.
        audio: whether max_pool is heard.
        embedding: (tracks, dim) that is heard beside or without it; None where there is none.
    """

    name: str
    audio: bool
    embedding: Float32 | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """The work: trains heads by a recipe, and tells on which tracks they are right.

    Attributes:
        training: of the machine; its inputs are those of the recipe.
        max_pool: (tracks, 753).
        labels: (tracks,) class numbers.
        artists: (tracks,) numbers.
        splits: of each the rows to train on and those to test on.
    """

    training: HeadTraining
    max_pool: Float32
    labels: Int64
    artists: Int64
    splits: tuple[tuple[Int64, Int64], ...]

    def __call__(self, shard: Sequence[Recipe]) -> Files:
        """right.npy (repeats, tracks) and right-of-splits.npy (splits, tracks), False where a track was not asked."""
        (recipe,) = shard
        features, training = self._heard(recipe)
        right = np.zeros((training.repeats, len(self.labels)), bool)
        for repeat in range(training.repeats):
            for train, test in folds(training.folds, self.labels, self.artists, seed=training.seed + repeat):
                right[repeat, test] = self._right(training, features, train, test)
        of_splits = np.zeros((len(self.splits), len(self.labels)), bool)
        for number, (train, test) in enumerate(self.splits):
            of_splits[number, test] = self._right(training, features, train, test)
        return {FOLDS: _npy(right), SPLITS: _npy(of_splits)}

    def _heard(self, recipe: Recipe) -> tuple[Float64, HeadTraining]:
        """(tracks, columns) that the recipe hears, and the settings of the training with its blocks."""
        blocks, columns = list[Block](), list[Float32]()
        if recipe.audio:
            blocks.append(Block(name=MAX_POOL))
            columns.append(self.max_pool)
        if recipe.embedding is not None:
            blocks.append(Block(name="embedding", width=recipe.embedding.shape[1]))
            columns.append(recipe.embedding)
        training = msgspec.structs.replace(self.training, inputs=tuple(blocks))
        return np.concatenate(columns, axis=1).astype(np.float64), training

    def _right(self, training: HeadTraining, features: Float64, train: Int64, test: Int64) -> Bool:
        if lacking := set(range(len(training.classes))) - set(self.labels[train].tolist()):
            raise SettingsError(
                f"no track of {training.classes[min(lacking)]} is left to train on in a fold or a split; give tracks "
                "of more artists, or fewer folds"
            )
        known = features[train], self.labels[train], self.artists[train]
        gamma, ridge = choose(training, *known, seed=training.seed)
        head = fit(training, *known, gamma=gamma, ridge=ridge)
        return head.scores(features[test]).decisions.argmax(axis=1) == self.labels[test]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """On which tracks a recipe was right, as Judge gives it."""

    of_folds: Bool
    of_splits: Bool


def read_judged(folder: Path) -> Judged:
    """What Judge sealed in a folder."""
    of_folds, of_splits = (np.load(folder / name, allow_pickle=False) for name in (FOLDS, SPLITS))
    return Judged(of_folds=of_folds, of_splits=of_splits)


def _npy(array: Bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
