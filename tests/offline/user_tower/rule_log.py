"""A log with something to learn, and a training that is quick."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from offline.user_tower.candidate import Candidate
from offline.user_tower.data import TrainingData, prepare
from offline.user_tower.parallel import Team
from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import train

ALONE = Team(device=torch.device("cpu"))
START = 1_600_000_000_000
QUICK = {
    "split": "leave-last", "dropouts": (0.1, 0.3), "trial_shares": (0.33,), "epochs": 1, "steps": 60,
    "validate_every": 10, "positions": 240, "warm_up": 10, "averaging": 0.9, "history": 10, "stride": 15,
}  # fmt: skip


def write_log(path: Path, *, users=60, tracks=40, seed=0) -> str:
    """A log in which seven listens of ten follow a rule: the track after t is 3 t + 1."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        track = int(rng.integers(tracks))
        for place in range(int(rng.integers(3, 50))):
            rows.append((f"u{user}", f"t{track}", START + 60_000 * place))
            track = (3 * track + 1) % tracks if rng.random() < 0.7 else int(rng.integers(tracks))
    pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at"]).write_parquet(path)
    return str(path)


def train_alone(folder: Path, **settings: object) -> tuple[TrainingData, Candidate]:
    """Train without writing the tower: to write it as ONNX takes longer than a quick training."""
    folder.mkdir(exist_ok=True)
    data = prepare(TowerTraining(out=str(folder), **settings), scratch=folder, team=ALONE)
    return data, train(data, folder)
