"""RecBole's leave-one-out split and metrics on scores that are given; evaluation.py starts it in RecBole's environment.

python recbole_metrics.py FOLDER

FOLDER/log/log.inter holds the events, scores.npy one row of scores for each user, users.txt and tracks.txt the ids of
its rows and columns. Says a line of JSON: RecBole's metrics of its test part, of the whole catalogue, without the
tracks that a user had before.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.trainer import Trainer
from recbole.utils import InputType


class Given(GeneralRecommender):
    """Scores that somebody else made."""

    input_type = InputType.POINTWISE  # RecBole asks for it, though nothing is trained

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        folder = Path(config["data_path"]).parent
        users, tracks = ((folder / name).read_text().split() for name in ("users.txt", "tracks.txt"))
        rows, columns = dataset.token2id("user_id", users), dataset.token2id("item_id", tracks)
        self.scores = torch.full((self.n_users, self.n_items), -torch.inf)
        self.scores[rows[:, None], columns] = torch.from_numpy(np.load(folder / "scores.npy"))
        self.unused = torch.nn.Parameter(torch.zeros(1))  # the trainer's optimiser wants one

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Scores of the users of an interaction."""
        return self.scores[interaction["user_id"]].flatten()


def main(folder: str) -> None:
    """Evaluate, and say the metrics."""
    sys.argv = sys.argv[:1]  # RecBole reads it
    settings = {
        "data_path": folder,
        "checkpoint_dir": f"{folder}/saved",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["Recall", "NDCG"],
        "topk": [10, 50, 100],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 15,
        "use_gpu": False,
    }
    config = Config(model=Given, dataset="log", config_dict=settings)
    train_data, _, test_data = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, Given(config, train_data.dataset))
    trainer.eval_collector.data_collect(train_data)
    found = trainer.evaluate(test_data, load_best_model=False)
    print(json.dumps({name: float(value) for name, value in found.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
