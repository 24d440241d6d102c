"""What the contract's 40-d cosine and the length of the history cost: the same training, one thing changed a rung."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Column, Table

from offline.files import new_file
from offline.ranking import METRICS, Examples, rank
from offline.tower_training import NetworkScorer, TowerTraining, prepare, train

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
        For each rung its name, the metrics of the test with n, the dropout, and the seconds it took.
    """
    out, found = Path(config.out), []
    for number, (name, changes) in enumerate(RUNGS.items()):
        folder = out / f"rung-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        job = prepare(msgspec.structs.replace(config, **changes), scratch=folder)
        chosen = train(job, folder)
        seconds = time.monotonic() - began
        examples = Examples.of(job.log, job.split, job.split.test)
        counted = examples.slices("discovery")["all"]
        ranked = rank(NetworkScorer(job, chosen.best), job.log, examples, protocols=("discovery",))["discovery"]
        metrics = dict(zip(METRICS, ranked.values()[counted].mean(axis=0).tolist(), strict=True))
        rung = {"name": name, "n": int(counted.sum()), "dropout": chosen.dropout, "seconds": seconds}
        found.append(rung | {"valid_ndcg_at_10": chosen.best_score} | metrics)
    with new_file(out / "ladder.json") as path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return found


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
