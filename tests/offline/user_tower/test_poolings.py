from pathlib import Path

import pytest
from msgspec import structs

from models.errors import SettingsError
from models.history import CountingRule
from offline.user_tower import poolings
from offline.user_tower.poolings import train_poolings
from offline.user_tower.settings import TowerTraining
from tests.offline.user_tower.rule_log import write_log


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TowerTraining]:
    """The trainings that are asked for, none of which is done."""
    asked: list[TowerTraining] = []
    monkeypatch.setattr(poolings.train, "run", asked.append)
    return asked


def test_both_poolings_are_trained_with_what_they_are_to_be_judged_by(asked: list[TowerTraining], tmp_path: Path):
    log = write_log(tmp_path / "log.parquet")
    counting = CountingRule(target_share=0.8)
    train_poolings(tmp_path / "towers", log=log, split="temporal", test_share=0.2, counting=counting)
    assert asked == [
        TowerTraining(log=log, out=str(tmp_path / "towers" / name), pooling=name, test_share=0.2, counting=counting)
        for name in ("mean", "attention")
    ]


def test_a_tower_that_is_there_is_not_trained_again(
    asked: list[TowerTraining], trained: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, made, _ = trained
    monkeypatch.setattr(poolings, "POOLINGS", (out.name,))
    monkeypatch.setattr(poolings, "TowerTraining", lambda **given: structs.replace(made, log=given["log"]))
    same = {"split": made.split, "test_share": made.test_share, "counting": made.counting}
    train_poolings(out.parent, log=made.log, **same)
    assert not asked
    train_poolings(out.parent, log=write_log(tmp_path / "other.parquet", users=61), **same)
    assert len(asked) == 1


def test_a_log_that_cannot_be_split_leaves_nothing(asked: list[TowerTraining], tmp_path: Path):
    log = write_log(tmp_path / "log.parquet", users=1, seed=3)
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match=r"the temporal split of .* leaves no listen to"):
        train_poolings(out / "towers", log=log, split="temporal", test_share=1e-9, counting=CountingRule())
    assert not asked
    assert not list(out.iterdir())
