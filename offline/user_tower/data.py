"""What the towers of a training have in common: the log and its split, the tracks with vectors, the validation."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import SettingsError
from models.history import IS_USABLE
from offline.features.held_out import HeldOut, Part, read_held_out
from offline.interactions.log import InteractionLog, read_log
from offline.interactions.splits import Split, in_training, split_log
from offline.ranking.examples import Examples
from offline.user_tower.budget import Budget
from offline.user_tower.no_history import first_listens
from offline.user_tower.parallel import Team
from offline.user_tower.settings import TowerTraining
from offline.user_tower.start import spectral_start
from offline.user_tower.windows import Windows, ahead, epoch_steps, windows


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """What does not change while towers train.

    Attributes:
        settings, log, split: of the training.
        team: the processes that train together.
        learned: (items,) places in log.tracks of the tracks with a usable listen in the training part: they get
            vectors. Nobody knows of a track that was only ever skipped who would like it.
        row_of: (tracks,) the inverse; -1 where there is none.
        start: (items, dim) where their vectors begin.
        first_listens: (items,) share of each among the first listens.
        examples: what a validation ranks.
        budget: how many steps there are.
        held_out: tracks that get no vector and are not looked at; None where there are none.
        key: of the settings and the log; a training goes on from a checkpoint with the same key.
    """

    settings: TowerTraining
    log: InteractionLog
    split: Split
    team: Team
    learned: NDArray[np.int64]
    row_of: NDArray[np.int64]
    start: Tensor
    first_listens: Tensor
    examples: Examples
    budget: Budget
    held_out: HeldOut | None
    key: str

    @property
    def device(self) -> torch.device:
        """What this process trains on."""
        return self.team.device

    def steps(self, *, done: int = 0) -> Generator[Windows, None, None]:
        """The steps of a training, without end, from the one after `done` on."""
        settings = self.settings
        return ahead(
            windows(
                self.log,
                self.split,
                self.row_of,
                context=settings.context,
                stride=settings.trains,
                positions=settings.positions,
                seed=settings.seed,
                done=done,
                rank=self.team.rank,
                processes=self.team.size,
            )
        )


def prepare(settings: TowerTraining, *, scratch: Path, team: Team, start: Tensor | None = None) -> TrainingData:
    """Read the log, split it, and draw the examples of the validation.

    Example:
        with team_of("auto") as team:
            data = prepare(TowerTraining(log="listens", out="tower"), scratch=Path("tower.partial"), team=team)
            first = next(data.steps())

    Args:
        settings: of the training.
        scratch: folder of the log's arrays while they are in use.
        team: the processes that train together.
        start: (items, dim) where the item vectors begin; offline.user_tower.start has them when None.

    Raises:
        SettingsError: the log cannot be used, or the split leaves a part empty.
    """
    log = read_log(settings.log, rule=settings.counting, scratch=scratch, forgotten=settings.forgotten)
    split = split_log(log, settings.split, test_share=settings.test_share)
    held_out = read_held_out(settings.held_out) if settings.held_out else None
    allowed = np.ones(len(log.tracks), bool) if held_out is None else held_out.parts(log.tracks) == Part.TRAIN
    usable = in_training(log, split) & IS_USABLE[log.signal] & allowed[log.track]
    learned = np.flatnonzero(np.bincount(log.track[usable], minlength=len(log.tracks)))
    row_of = np.full(len(log.tracks), -1, np.int64)
    row_of[learned] = np.arange(len(learned))
    if not len(learned):
        raise SettingsError(
            f"the training part of {settings.log} has no usable listen of a track that is not held out; take a longer "
            "log, or hold out fewer tracks"
        )
    positions = split.valid[allowed[log.track[split.valid]]]
    decides = msgspec.structs.replace(
        settings, log="", out="", forgotten=None, held_out=held_out and held_out.sha256, device="auto",
        processes=1, ray=None,
    )  # fmt: skip
    if start is None:
        vectors = spectral_start(log, split, row_of, items=len(learned), dim=settings.dim, seed=settings.seed)
        start = torch.from_numpy(vectors)
    return TrainingData(
        settings=settings,
        log=log,
        split=split,
        team=team,
        learned=learned,
        row_of=row_of,
        start=start,
        first_listens=torch.from_numpy(first_listens(log, split, row_of, items=len(learned))),
        examples=Examples.of(log, split, drawn_positions(positions, settings)),
        budget=Budget.of(
            settings, epoch_steps=epoch_steps(log, split, positions=settings.positions, processes=team.size)
        ),
        held_out=held_out,
        key=f"{log.fingerprint} {msgspec.json.encode(decides, order='sorted').decode()} {team.size}",
    )


def drawn_positions(positions: NDArray[np.int64], settings: TowerTraining) -> NDArray[np.int64]:
    """The positions that a validation ranks: a sample where there are more."""
    if len(positions) <= settings.validation_examples:
        return positions
    rng = np.random.default_rng(settings.seed)
    return np.sort(rng.choice(positions, settings.validation_examples, replace=False))
