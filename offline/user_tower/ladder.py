"""`tastewave-offline ladder`: what the contract's 40-d cosine and the length of the history cost on a log.

The same training for each rung, with one thing changed from the rung before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Column, Table

from offline.files import locked, new_file, write_json, writing
from offline.ranking.examples import Examples, draw_users
from offline.ranking.rank import METRICS, rank
from offline.tables import table_lines
from offline.user_tower.data import prepare
from offline.user_tower.parallel import team_of
from offline.user_tower.scorer import NetworkScorer
from offline.user_tower.settings import Ladder
from offline.user_tower.train import train

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


def run(settings: Ladder) -> Outcome:
    """Train each rung, rank the test (discovery), and write ladder.json; a ladder that was killed goes on.

    Raises:
        SettingsError: as for offline.user_tower.train.run.
    """
    out = Path(settings.out)
    with writing(out, ": the ladder goes on from its last validation"), locked(out):
        rungs = [{"name": name} | _rung(settings, changes, out / f"rung-{number}")
                 for number, (name, changes) in enumerate(RUNGS.items())]  # fmt: skip
        with new_file(out / "ladder.json") as path:
            write_json(path, rungs)
    return Outcome(rungs=rungs)


def _rung(settings: Ladder, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    with team_of(settings.device) as team:
        data = prepare(msgspec.structs.replace(settings, **changes), scratch=folder, team=team)
        chosen = train(data, folder)
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
