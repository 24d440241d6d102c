from pathlib import Path

import numpy as np
import polars as pl
import pytest

from offline.synth.settings import DAY_MS
from tests.offline.synth.platforms import CONFIG, log


def test_users_listen_only_after_they_joined_and_new_ones_keep_coming(platform: Path):
    users = pl.read_parquet(platform / "truth" / "users.parquet")
    first = log(platform).group_by("user_id").agg(pl.col("at").min()).join(users, on="user_id")
    assert (first["at"] >= first["joined_at"]).all()
    assert (first["at"] > CONFIG.start_ms + CONFIG.days // 2 * DAY_MS).sum() >= 10


def test_tastes_drift(platform: Path):
    users = pl.read_parquet(platform / "truth" / "users.parquet")
    assert 0.3 < (users["drift"] > 0.3).mean() < 0.7
    assert (users["drift"] < 0.1).any()
    assert np.linalg.norm(users["late_taste"].to_numpy(), axis=1) == pytest.approx(1.0, abs=1e-5)
