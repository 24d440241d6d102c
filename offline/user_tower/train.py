"""`tastewave-offline train-user-tower`: a user tower from an interaction log."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from models.errors import SettingsError
from models.user_tower import TOWER_MANIFEST
from offline.files import check_replaceable, locked, writing
from offline.interactions.made_up import platform_caveat
from offline.user_tower.budget import ended
from offline.user_tower.candidate import Candidate
from offline.user_tower.course import CourseBar
from offline.user_tower.data import TrainingData, prepare
from offline.user_tower.export import export
from offline.user_tower.parallel import Team, team_of
from offline.user_tower.scorer import NetworkScorer
from offline.user_tower.settings import TowerTraining
from offline.user_tower.trials import advance, candidate_of, scores_of_trial

_LEFT_OUT = {
    "duplicates": "were the same listen again, and counted once",
    "excluded": "are marked as excluded, and were left out",
    "forgotten": "are of users or tracks that were forgotten, and were left out",
    "taken_back": "were taken back by later ones, and were left out",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A tower that was trained.

    Attributes:
        out: its folder.
        training: how it was made, as the manifest's `training` has it.
        told: False in a process that does not speak for the others.
    """

    out: Path
    training: dict[str, Any]
    told: bool = True

    def lines(self) -> list[str]:
        """What the command prints."""
        if not self.told:
            return []
        training = self.training
        lines = [
            f"{training['log'][name]:,} rows of the log {why}"
            for name, why in _LEFT_OUT.items()
            if training["log"].get(name)  # a tower of an earlier version does not tell all of them
        ]
        lines.append(
            f"{self.out}: user tower of {training['tracks']:,} tracks; dropout {training['dropout']:g}, best at step "
            f"{training['best_step']:,} with a validation NDCG@10 of {training['valid_ndcg_at_10']:.4f}"
        )
        lines.append(training["ended"])
        return lines


def run(settings: TowerTraining) -> Outcome:
    """Train a tower and write its folder; a training that was killed goes on from its last validation.

    Where torchrun started several processes, each calls this with the same settings, and the first one writes.

    Raises:
        SettingsError: the log cannot be used, the split leaves a part empty, the loss is no number, another run
            trains this tower, or the folder cannot be written.
    """
    if settings.score == "dot":
        raise SettingsError(
            "score=dot gives vectors without unit norm, which cannot be deployed; "
            "use score=cosine, or compare both with `ladder`"
        )
    out = Path(settings.out).resolve()
    partial = out.with_name(out.name + ".partial")
    with team_of(settings.device) as team:
        if not team.leads:
            team.wait()
            training = describe(*_trained(settings, partial, team))
            team.wait()
            return Outcome(out=Path(settings.out), training=training, told=False)
        with writing(out, ": the training goes on from its last validation"), locked(partial):
            check_replaceable(out, TOWER_MANIFEST)
            team.wait()
            data, chosen = _trained(settings, partial, team)
            training = describe(data, chosen)
            no_history = NetworkScorer(data, chosen.best.tower, chosen.best.items).no_history
            team.wait()
            export(
                chosen.best.tower, chosen.best.items, out=out, ids=data.log.tracks[data.learned].to_list(),
                global_embedding=tuple(no_history.tolist()), pooling=settings.pooling, counting=settings.counting,
                training=training,
            )  # fmt: skip
            shutil.rmtree(partial, ignore_errors=True)
    return Outcome(out=Path(settings.out), training=training)


def _trained(settings: TowerTraining, partial: Path, team: Team) -> tuple[TrainingData, Candidate]:
    scratch = partial / f"process-{team.rank}"  # each process has arrays of the log of its own
    scratch.mkdir(exist_ok=True)
    data = prepare(settings, scratch=scratch, team=team)
    return data, train(data, partial)


def train(data: TrainingData, folder: Path, *, shown: bool = True) -> Candidate:
    """Train a tower for each dropout, give up the worse ones on the way, and train the best to its end.

    Args:
        data: what they train on.
        folder: of their checkpoints.
        shown: whether people see how far it is.
    """
    budget, dropouts = data.budget, list(data.settings.dropouts)
    with CourseBar(budget, shown=shown and data.team.leads) as bar:
        for until, kept in budget.trials:
            scores = scores_of_trial(data, dropouts, folder, bar, until=until)
            dropouts = sorted(scores, key=lambda dropout: -scores[dropout])[:kept]
        return advance(candidate_of(data, dropouts[0], folder), bar, until=budget.steps)


def describe(data: TrainingData, chosen: Candidate) -> dict[str, Any]:
    """How a tower was made, for its manifest and the report."""
    return {
        "config": msgspec.to_builtins(data.settings),
        "log": {
            **{name: getattr(data.log, name) for name in ("where", "fingerprint", *_LEFT_OUT)},
            "caveat": platform_caveat(data.log.where),
        },
        "held_out": data.held_out.facts() if data.held_out else None,
        "split": data.split.name,
        "test_share": data.settings.test_share,
        "trained_until_ms": data.split.test_from_ms or int(data.log.at.max()) + 1,
        "tracks": len(data.learned),
        "dropout": chosen.dropout,
        "best_step": chosen.best_step,
        "valid_ndcg_at_10": chosen.best_score,
        "epoch_steps": data.budget.epoch_steps,
        "ended": ended(chosen.course, epoch_steps=data.budget.epoch_steps, patience=data.settings.patience),
        "processes": data.team.size,
        "examples_per_s": sum(p["examples"] for p in chosen.course) / sum(p["seconds"] for p in chosen.course),
        "course": chosen.course,
    }
