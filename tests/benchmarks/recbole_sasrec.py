"""RecBole's SASRec as published, trained by RecBole's own loop; user_tower.py starts it in RecBole's environment.

python recbole_sasrec.py FOLDER MAX_ITEM_LIST_LENGTH    # FOLDER/log/log.inter holds the events

Says "ready" once the data are prepared. Then, for each line of input, a number of seconds, it trains for so long and
answers with a line of JSON: examples, seconds, loss. RecBole makes an example of each prefix of a history, of its last
MAX_ITEM_LIST_LENGTH tracks: an example is one prediction with a loss.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def settings(folder: str, length: int) -> dict[str, Any]:
    """Where they are not RecBole's defaults: two layers and heads, width 64, full cross-entropy, 2,048 in a batch."""
    return {
        "data_path": folder,
        "checkpoint_dir": f"{folder}/saved",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": None,  # as it asks for with loss_type CE
        "MAX_ITEM_LIST_LENGTH": length,
        "use_gpu": False,
    }


def main(folder: str, length: str) -> None:
    """Prepare the data, then train as told."""
    torch.set_num_threads(2)
    sys.argv = sys.argv[:1]  # RecBole reads it
    config = Config(model="SASRec", dataset="log", config_dict=settings(folder, int(length)))
    init_seed(config["seed"], config["reproducibility"])
    train_data, *_ = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, train_data._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    examples = 0

    def batches(until: float) -> Iterator[Any]:
        nonlocal examples
        for batch in train_data:
            examples += len(batch)
            yield batch
            if time.perf_counter() > until:
                return

    print("ready", flush=True)
    for line in sys.stdin:
        examples, began = 0, time.perf_counter()
        loss = trainer._train_epoch(batches(began + float(line)), 0)
        took = time.perf_counter() - began
        print(json.dumps({"examples": examples, "seconds": took, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
