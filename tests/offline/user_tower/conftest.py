"""A log and towers that tests of several modules read; none of them changes them."""

import pytest

from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import run
from tests.offline.user_tower.rule_log import QUICK, write_log


@pytest.fixture(scope="session")
def log_path(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("log") / "log.parquet")


@pytest.fixture(scope="session", params=["mean", "attention"])
def trained(request, log_path, tmp_path_factory):
    """The folder of a tower that was trained on the log, and the settings and the outcome of that training."""
    out = tmp_path_factory.mktemp("tower") / request.param
    settings = TowerTraining(log=log_path, out=str(out), pooling=request.param, **QUICK | {"steps": 300})
    return out, settings, run(settings)
