"""What the contract's 40-d cosine and the length of the history cost: the same training, one thing changed a rung."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Column, Table

from offline.evaluation.ranking import METRICS, Examples, draw_users, rank
from offline.files import new_file, writing
from offline.user_tower.train import NetworkScorer, TowerTraining, prepare, train

RUNGS: dict[str, dict[str, Any]] = {
    "dot 64, history 200": {"score": "dot", "dim": 64, "history": 200},
    "dot 40, history 200": {"score": "dot", "dim": 40, "history": 200},
    "cosine 40, history 200": {"score": "cosine", "dim": 40, "history": 200},
    "cosine 40, history 50": {"score": "cosine", "dim": 40, "history": 50},
}
"""From what is free to what is deployed."""


def run(config: TowerTraining) -> list[dict[str, Any]]:
    """Train each rung, rank the test (discovery), and write ladder.json; a ladder that was killed goes on.

    Returns:
        For each rung its name, the metrics of the test with n, the dropout, and the seconds that training took.

    Raises:
        SettingsError: as for offline.user_tower.train.run.
    """
    out = Path(config.out)
    with writing(out, ": the ladder goes on from its last validation"):
        found = [{"name": name} | _rung(config, changes, out / f"rung-{number}")
                 for number, (name, changes) in enumerate(RUNGS.items())]  # fmt: skip
        with new_file(out / "ladder.json") as path:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return found


def _rung(config: TowerTraining, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    job = prepare(msgspec.structs.replace(config, **changes), scratch=folder)
    chosen = train(job, folder)
    examples = Examples.of(job.log, job.split, draw_users(job.log, job.split.test, seed=config.seed))
    counted = examples.slices("discovery")["all"]
    ranked = rank(NetworkScorer(job, chosen.best), job.log, examples, protocols=("discovery",))["discovery"]
    return {
        "n": int(counted.sum()),
        "dropout": chosen.dropout,
        "seconds": sum(point["seconds"] for point in chosen.course),
        "valid_ndcg_at_10": chosen.best_score,
        **dict(zip(METRICS, ranked.values()[counted].mean(axis=0).tolist(), strict=True)),
    }


def table(rungs: list[dict[str, Any]]) -> Table:
    """The rungs for people."""
    columns = ("Recall@10", "NDCG@10", "validation", "dropout", "n", "minutes")
    shown = Table(Column(no_wrap=True), *columns, box=box.SIMPLE_HEAD)
    for rung in rungs:
        shown.add_row(
            rung["name"],
            f"{rung['recall_at_10']:.4f}",
            f"{rung['ndcg_at_10']:.4f}",
            f"{rung['valid_ndcg_at_10']:.4f}",
            f"{rung['dropout']:g}",
            f"{rung['n']:,}",
            f"{rung['seconds'] / 60:.1f}",
        )
    return shown
