"""The dropouts of a training that are still tried, each trained up to a step: one after another, or side by side.

Side by side each has a process of its own, of this machine or of a Ray cluster, which reads the log for itself. What
it learned lies in its checkpoint, so that the tower is the same in both ways.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import msgspec
import torch

from models.errors import SettingsError
from offline.spread import Files, spread
from offline.user_tower.candidate import Candidate
from offline.user_tower.course import CourseBar
from offline.user_tower.data import TrainingData, prepare
from offline.user_tower.parallel import team_of
from offline.user_tower.settings import TowerTraining

_SCORE = "score.json"


def candidate_of(data: TrainingData, dropout: float, folder: Path) -> Candidate:
    """The tower of a dropout, as its checkpoint in a folder has it."""
    return Candidate(data, dropout, folder / f"dropout-{dropout}.safetensors")


def advance(candidate: Candidate, bar: CourseBar, *, until: int) -> Candidate:
    """Train a candidate until so many steps are done or patience is at its end."""
    # oneDNN keeps what it made for each shape that it has seen, and every step is of another shape.
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    bar.describe(candidate)
    with closing(candidate.data.steps(done=candidate.steps)) as batches:
        while candidate.steps < until and not candidate.is_stale:
            candidate.train(islice(batches, candidate.data.budget.validate_every), advance=bar.advance)
            bar.validated(candidate)
    return candidate


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The work of a shard: one dropout.

    Attributes:
        settings: of the training.
        folder: of the checkpoints.
        until: the step at which the trial ends.
    """

    settings: TowerTraining
    folder: str
    until: int

    def __call__(self, shard: Sequence[float]) -> Files:
        """The file of a shard: NDCG@10 of its best validation so far."""
        (dropout,) = shard
        data = _prepared(self.settings, self.folder)
        with CourseBar(data.budget, shown=False) as bar:
            trained = advance(candidate_of(data, dropout, Path(self.folder)), bar, until=self.until)
        return {_SCORE: msgspec.json.encode(trained.best_score)}


@lru_cache(maxsize=1)
def _prepared(settings: TowerTraining, folder: str) -> TrainingData:
    """A process reads the log once."""
    with team_of(settings.device) as team:
        return prepare(settings, scratch=Path(folder), team=team)


def scores_of_trial(
    data: TrainingData, dropouts: Sequence[float], folder: Path, bar: CourseBar, *, until: int
) -> dict[float, float]:
    """Train each of some dropouts up to a step: NDCG@10 of its best validation so far.

    Args:
        data: what they train on.
        dropouts: that are still tried.
        folder: of their checkpoints.
        bar: that shows them.
        until: the step at which the trial ends.

    Raises:
        SettingsError: they cannot train side by side.
    """
    settings = data.settings
    if settings.processes == 1 and settings.ray is None:
        return {d: advance(candidate_of(data, d, folder), bar, until=until).best_score for d in dropouts}
    if data.team.size > 1:
        raise SettingsError(
            "torchrun started several processes, which train each dropout together; leave out processes and ray"
        )
    out = folder / f"trial-{until}-{hashlib.sha256(data.key.encode()).hexdigest()[:12]}"
    out.mkdir(exist_ok=True)
    shards = {f"dropout-{dropout}": [dropout] for dropout in dropouts}
    work = Trial(settings=settings, folder=str(folder), until=until)
    if given_up := spread(
        work, shards, out=out, progress=bar.bars, label=f"Training dropouts, up to step {until:,}",
        processes=settings.processes, ray=settings.ray,
    ):  # fmt: skip
        raise SettingsError(f"the training of {given_up[0]} killed its processes; use fewer processes")
    return {dropout: msgspec.json.decode((out / name / _SCORE).read_bytes()) for name, (dropout,) in shards.items()}
