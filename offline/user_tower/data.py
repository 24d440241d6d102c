"""What the towers of a training have in common: the log and its split, the tracks with vectors, the validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.interactions.log import InteractionLog, read_log
from offline.interactions.splits import Split, in_training, split_log
from offline.ranking.examples import Examples
from offline.user_tower.settings import TowerTraining
from offline.user_tower.start import spectral_start
from offline.user_tower.windows import Windows, windows


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """What does not change while towers train.

    Attributes:
        settings, log, split: of the training.
        learned: (items,) places in log.tracks of the tracks with a listen in the training part: they get vectors.
        row_of: (tracks,) the inverse; -1 where there is none.
        start: (items, dim) where their vectors begin.
        examples: what a validation ranks.
        device: a GPU where there is one.
        key: of the settings and the log; a training goes on from a checkpoint with the same key.
    """

    settings: TowerTraining
    log: InteractionLog
    split: Split
    learned: NDArray[np.int64]
    row_of: NDArray[np.int64]
    start: Tensor
    examples: Examples
    device: torch.device
    key: str

    def steps(self, *, done: int = 0) -> Iterator[Windows]:
        """The steps of a training, without end, from the one after `done` on."""
        settings = self.settings
        return windows(
            self.log,
            self.split,
            self.row_of,
            context=settings.context,
            stride=settings.trains,
            batch=max(1, settings.positions // settings.trains),
            seed=settings.seed,
            done=done,
        )


def prepare(settings: TowerTraining, *, scratch: Path) -> TrainingData:
    """Read the log, split it, and draw the examples of the validation.

    Example:
        data = prepare(TowerTraining(log="listens", out="tower"), scratch=Path("tower.partial"))
        first = next(data.steps())

    Raises:
        SettingsError: the log cannot be used, or the split leaves a part empty.
    """
    log = read_log(settings.log, rule=settings.counting, scratch=scratch, forgotten=settings.forgotten)
    split = split_log(log, settings.split, test_share=settings.test_share)
    learned = np.flatnonzero(np.bincount(log.track[in_training(log, split)], minlength=len(log.tracks)))
    row_of = np.full(len(log.tracks), -1, np.int64)
    row_of[learned] = np.arange(len(learned))
    positions = split.valid
    if len(positions) > settings.validation_examples:
        rng = np.random.default_rng(settings.seed)
        positions = np.sort(rng.choice(positions, settings.validation_examples, replace=False))
    decides = msgspec.json.encode(msgspec.structs.replace(settings, log="", out="", forgotten=None), order="sorted")
    return TrainingData(
        settings=settings,
        log=log,
        split=split,
        learned=learned,
        row_of=row_of,
        start=torch.from_numpy(
            spectral_start(log, split, row_of, items=len(learned), dim=settings.dim, seed=settings.seed)
        ),
        examples=Examples.of(log, split, positions),
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        key=f"{log.fingerprint} {decides.decode()}",
    )
