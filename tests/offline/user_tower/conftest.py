"""A log and towers that tests of several modules read; none of them changes them."""

from pathlib import Path

import pytest

from models.user_tower import load_user_tower
from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import run
from tests.conftest import MadeOnce
from tests.offline.user_tower.rule_log import QUICK, write_log


@pytest.fixture(scope="session")
def log_path(made_once: MadeOnce):
    def make(folder):
        folder.mkdir()
        write_log(folder / "log.parquet")

    return str(made_once("rule-log", make) / "log.parquet")


@pytest.fixture(scope="session", params=["mean", "attention"])
def trained(request, log_path, made_once: MadeOnce):
    """The folder of a tower that was trained on the log, and the settings of that training and its figures."""

    def settings(folder):
        out = str(folder / request.param)
        return TowerTraining(log=log_path, out=out, pooling=request.param, **QUICK | {"steps": 300})

    made = settings(made_once(f"trained-{request.param}", lambda folder: run(settings(folder))))
    return Path(made.out), made, load_user_tower(made.out).manifest.training
