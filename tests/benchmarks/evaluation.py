"""Our split and metrics beside RecBole's, on one log and one table of scores: they have to be equal.

python tests/benchmarks/evaluation.py metrics    # two minutes; ends with an error where a figure differs
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import polars as pl
from environments import python_of
from numpy.typing import NDArray
from user_tower import write_inter, write_look_alike

TOLERANCE = 1e-9
NAMES = {
    "recall_at_10": "recall@10",
    "recall_at_50": "recall@50",
    "recall_at_100": "recall@100",
    "ndcg_at_10": "ndcg@10",
}


class Given:
    """One row of scores for each user, as an offline.ranking.rank.Scorer."""

    name = "given"

    def __init__(self, table: NDArray[np.float32]) -> None:
        self.table = table

    def scores(self, log: object, users: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.float32]:
        """See Scorer."""
        return self.table[users]


def metrics(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Ours and RecBole's, of the scores of a floor, leave-last, without the tracks that a user had before.

    The log is the look-alike of MovieLens-1M, each listen at a moment of its own. Scores are made without ties, which
    RecBole breaks as they come and we break against the model.
    """
    from offline.evaluation.floors import Training, TransitionsFloor
    from offline.evaluation.measures import Judged
    from offline.interactions.log import read_log
    from offline.interactions.splits import split_log
    from offline.ranking.examples import PROTOCOLS
    from offline.ranking.intervals import Bootstrap

    path = folder / "log.parquet"
    write_look_alike(path)
    events = pl.read_parquet(path).sort("user_id", "at", "track_id")
    events.with_columns(at=10**12 + 1000 * pl.int_range(pl.len()).over("user_id")).write_parquet(path)
    log = read_log(str(path))
    split = split_log(log, "leave-last")
    floor = TransitionsFloor.fit(
        Training.of(log, split), {"power": 0.5, "pair_decay": 0.8, "decay": 0.8, "own_weight": 0.0}
    )
    users = log.user_of(split.test)
    scores = np.concatenate(
        [floor.scores(log, log.user_of(part), part) for part in np.array_split(split.test, 1 + len(users) // 500)]
    )
    table = np.zeros((len(log.users), len(log.tracks)), np.float32)
    table[users] = scores.argsort(axis=1, kind="stable").argsort(axis=1)
    judged = Judged.of(log, split, split.test, bootstrap=Bootstrap(users, replicates=100, seed=0))
    measured = judged.measure(judged.rank(dict.fromkeys(PROTOCOLS, Given(table))))["before_moment"]["discovery"]
    ours = {name: float(measured.leaves["all"][name]["value"] or 0.0) for name in NAMES}

    write_inter(path, folder)
    np.save(folder / "scores.npy", table)
    for name, ids in (("users.txt", log.users), ("tracks.txt", log.tracks)):
        (folder / name).write_text("\n".join(ids))
    command = [python_of("recbole"), "-W", "ignore", Path(__file__).with_name("recbole_metrics.py"), folder]
    answer = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    theirs = json.loads(answer.stdout.strip().splitlines()[-1])
    return ours, {name: theirs[peer] for name, peer in NAMES.items()}


@click.group(help=__doc__)
def main() -> None:
    """Choose what to do."""


@main.command("metrics")
def compare() -> None:
    """Compare, and fail where a figure differs by more than 1e-9."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = metrics(Path(folder))
    for name, value in ours.items():
        print(f"{name:<16}{value:.12f}   RecBole {theirs[name]:.12f}   difference {abs(value - theirs[name]):.1e}")
    if max(abs(ours[name] - theirs[name]) for name in NAMES) > TOLERANCE:
        sys.exit(f"a figure differs by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
