"""`tastewave-offline ladder`: what the contract's 40-d cosine and the length of the history cost on a log.

The same training for each rung, with one thing changed from the rung before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Column, Table

from models.errors import SettingsError
from offline.files import locked, new_file, write_json, writing
from offline.interactions.log import read_log
from offline.progress import progress_bar
from offline.ranking.examples import Examples, draw_users
from offline.ranking.rank import METRICS, rank
from offline.spread import Files, spread
from offline.tables import table_lines
from offline.user_tower.data import prepare
from offline.user_tower.parallel import team_of
from offline.user_tower.scorer import NetworkScorer
from offline.user_tower.settings import Ladder
from offline.user_tower.train import train

_REACHED = "reached.json"

RUNGS: dict[str, dict[str, Any]] = {
    "dot 64, history 200": {"score": "dot", "dim": 64, "history": 200},
    "dot 40, history 200": {"score": "dot", "dim": 40, "history": 200},
    "cosine 40, history 200": {"score": "cosine", "dim": 40, "history": 200},
    "cosine 40, history 50": {"score": "cosine", "dim": 40, "history": 50},
}
"""From what is free to what is deployed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the rungs reach.

    Attributes:
        rungs: of each its name, the metrics of the test with n, the dropout, and the seconds that training took.
    """

    rungs: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """What the command prints."""
        columns = ("Recall@10", "NDCG@10", "validation", "dropout", "n", "minutes")
        table = Table(Column(no_wrap=True), *columns, box=box.SIMPLE_HEAD)
        for rung in self.rungs:
            table.add_row(
                rung["name"],
                f"{rung['recall_at_10']:.4f}",
                f"{rung['ndcg_at_10']:.4f}",
                f"{rung['valid_ndcg_at_10']:.4f}",
                f"{rung['dropout']:g}",
                f"{rung['n']:,}",
                f"{rung['seconds'] / 60:.1f}",
            )
        return table_lines(table)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """The work of a shard: one rung.

    Attributes:
        settings: of the ladder.
    """

    settings: Ladder

    def __call__(self, shard: Sequence[str]) -> Files:
        """The file of a shard: what the rung reaches."""
        (name,) = shard
        return {_REACHED: msgspec.json.encode({"name": name} | _reached(self.settings, name))}


def run(settings: Ladder) -> Outcome:
    """Train each rung, rank the test (discovery), and write ladder.json; a ladder that was killed goes on.

    Raises:
        SettingsError: as for offline.user_tower.train.run, or Ray cannot be used.
    """
    out = Path(settings.out).resolve()  # a process of a cluster is somewhere else
    settings = msgspec.structs.replace(settings, out=str(out))
    with writing(out, ": the ladder goes on from its last validation"), locked(out), progress_bar() as bar:
        done, shards = out / f"done-{_key(settings)}", {_folder(name): [name] for name in RUNGS}
        done.mkdir(exist_ok=True)
        if given_up := spread(
            Rung(settings=settings), shards, out=done, progress=bar, label="Training rungs",
            processes=settings.processes, ray=settings.ray,
        ):  # fmt: skip
            raise SettingsError(f"the training of {given_up[0]} killed its processes; use fewer processes")
        rungs = [msgspec.json.decode((done / name / _REACHED).read_bytes()) for name in shards]
        with new_file(out / "ladder.json") as path:
            write_json(path, rungs)
    return Outcome(rungs=rungs)


def _key(settings: Ladder) -> str:
    """Of the settings and the log: what was done for others is done again."""
    log = read_log(settings.log, rule=settings.counting, scratch=Path(settings.out), forgotten=settings.forgotten)
    decides = msgspec.structs.replace(settings, log=log.fingerprint, out="", forgotten=None, processes=1, ray=None)
    return hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:12]


def _folder(name: str) -> str:
    return f"rung-{[*RUNGS].index(name)}"


def _reached(settings: Ladder, name: str) -> dict[str, Any]:
    folder = Path(settings.out, _folder(name))
    folder.mkdir(parents=True, exist_ok=True)
    with team_of(settings.device) as team:
        own = msgspec.structs.replace(settings, **RUNGS[name], processes=1, ray=None)
        data = prepare(own, scratch=folder, team=team)
        chosen = train(data, folder, shown=False)
    examples = Examples.of(data.log, data.split, draw_users(data.log, data.split.test, seed=settings.seed))
    counted = examples.slices("discovery")["all"]
    scorer = NetworkScorer(data, chosen.best.tower, chosen.best.items)
    ranked = rank(scorer, data.log, examples, protocols=("discovery",))["discovery"]
    return {
        "n": int(counted.sum()),
        "dropout": chosen.dropout,
        "seconds": sum(point["seconds"] for point in chosen.course),
        "valid_ndcg_at_10": chosen.best_score,
        **dict(zip(METRICS, ranked.values()[counted].mean(axis=0).tolist(), strict=True)),
    }
