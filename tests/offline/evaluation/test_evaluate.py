import json
import shutil
import subprocess
import sys
from errno import ENOSPC
from os import strerror
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from models.errors import ReleaseError, SettingsError
from models.history import CountingRule
from offline.cli import cli
from offline.config import load_config
from offline.evaluation import evaluate
from offline.evaluation.evaluate import command, judge, run, write
from offline.evaluation.settings import Evaluate
from offline.features.held_out import read_held_out
from offline.user_tower import poolings
from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import run as train
from tests.conftest import MadeOnce

DAY = 86_400_000
START = 1_700_000_000_000


def test_the_command_that_makes_a_report_again_names_what_was_set():
    config = Evaluate(log="my logs/*.parquet", out="report")
    assert command(config) == "tastewave-offline evaluate 'my logs/*.parquet' report --split temporal"
    counting = CountingRule(target_share=0.8)
    config = Evaluate(log="log", out="r", towers=("a", "b"), split="leave-last", seed=3, counting=counting)
    assert command(config) == (
        "tastewave-offline evaluate log r --split leave-last --tower a --tower b counting.target_share=0.8 seed=3"
    )


def test_a_report_that_cannot_be_made_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "metrics.json").write_text("old")
    with pytest.raises(SettingsError):
        write({"verdict": []}, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("metrics.json", "old")]


def write_log(path: Path, *, users: int = 60, length: int = 12, tracks: int = 40) -> Path:
    """People who go round a circle of tracks, one a day, each from a place and a day of their own."""
    rows = [
        (f"u{user}", f"t{(7 * user + step) % tracks}", START + (step + user % 5) * DAY)
        for user in range(users)
        for step in range(length)
    ]
    pl.DataFrame(rows, schema=["user_id", "track_id", "at"], orient="row").write_parquet(path)
    return path


SHORT = {"steps": 40, "validate_every": 20, "trial_shares": (0.5,), "dropouts": (0.2,)}


@pytest.fixture(scope="module")
def tower(made_once: MadeOnce) -> tuple[Path, Path]:
    """A log, and a tower that was trained on it, shortly."""

    def make(folder: Path) -> None:
        folder.mkdir()
        log = write_log(folder / "log.parquet")
        train(load_config(TowerTraining, log=str(log), out=str(folder / "mean"), split="leave-last", **SHORT))

    folder = made_once("evaluated", make)
    return folder / "log.parquet", folder / "mean"


def test_a_tower_is_evaluated_against_the_floors_and_a_report_is_written(tower: tuple[Path, Path], tmp_path: Path):
    log, folder = tower
    result = CliRunner().invoke(
        cli, ["evaluate", str(log), str(tmp_path), "--tower", str(folder), "--split", "leave-last", "replicates=100"]
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "report.html"]
    assert "item_knn" in (tmp_path / "report.html").read_text()
    assert "item_knn" in result.stdout
    assert metrics["verdict"][0] in result.stdout.splitlines()
    assert list(metrics["models"]) == list(metrics["staleness"]) == list(metrics["training"]) == ["mean"]
    assert list(metrics["floors"]) == ["popularity", "personal_frequency", "item_knn", "transitions", "ease"]
    assert metrics["floors"]["transitions"]["discovery"]["all"]["recall_at_10"]["value"] == 1.0
    assert metrics["log"] | {"where": "", "fingerprint": ""} == {
        "where": "", "fingerprint": "", "users": 60, "tracks": 40, "listens": 720, "targets": 720, "from_ms": START,
        "to_ms": START + 15 * DAY,
    }  # fmt: skip
    split = metrics["split"]
    assert (split["train_listens"], split["valid_examples"], split["test_examples"], split["test_users"]) == (
        600, 60, 60, 60,
    )  # fmt: skip
    assert split["sampled"] is False
    fresh = metrics["staleness"]["mean"]["0"]["all"]
    assert fresh == metrics["models"]["mean"]["discovery"]["all"]["recall_at_10"]


def test_nobody_is_asked_for_tracks_that_a_tower_was_trained_without(tower: tuple[Path, Path], tmp_path: Path):
    log, folder = tower[0], shutil.copytree(tower[1], tmp_path / "tower")
    listed = {f"t{number}": "valid" if number % 2 else "test" for number in range(10)}
    pl.DataFrame({"track_id": [*listed], "part": [*listed.values()]}).write_csv(tmp_path / "held-out.csv")
    manifest = json.loads((folder / "tower.json").read_text())
    manifest["training"]["held_out"] = read_held_out(str(tmp_path / "held-out.csv")).facts()
    (folder / "tower.json").write_text(json.dumps(manifest))
    settings = Evaluate(log=str(log), out=str(tmp_path), towers=(str(folder),), split="leave-last", replicates=100)
    with pytest.raises(SettingsError, match=r"was trained without 10 tracks, .* give their list with --held-out"):
        judge(settings, scratch=tmp_path)
    metrics = judge(replace(settings, held_out=str(tmp_path / "held-out.csv")), scratch=tmp_path)
    asked = [user for user in range(60) if f"t{(7 * user + 11) % 40}" not in listed]
    assert metrics["split"]["test_examples"] == len(asked) == 46
    assert metrics["models"]["mean"]["replay"]["all"]["recall_at_10"]["n"] == 46


def test_the_command_trains_first_where_no_tower_is_given(
    tower: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log, folder = tower
    for module in (evaluate, poolings):
        monkeypatch.setattr(module, "POOLINGS", ("mean",))
    monkeypatch.setattr(poolings.train, "run", lambda settings: shutil.copytree(folder, settings.out))
    words = ["evaluate", str(log), str(tmp_path), "--split", "leave-last", "replicates=100"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["models"]) == ["mean"]
    assert metrics["config"]["towers"] == []
    assert metrics["command"] == f"tastewave-offline {' '.join(words)}"
    assert [path.name for path in (tmp_path / "towers").iterdir()] == ["mean"]


def test_an_evaluation_trains_no_towers(tower: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(ReleaseError):
        run(Evaluate(log=str(tower[0]), out=str(tmp_path), split="leave-last"))
    assert not list(tmp_path.glob("[!.]*"))


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_no_report(
    tower: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(ENOSPC, strerror(ENOSPC))

    monkeypatch.setattr(evaluate, "write_report", full)
    log, folder = tower
    with pytest.raises(SettingsError, match=r"cannot be written \(No space left on device\); make room"):
        run(Evaluate(log=str(log), out=str(tmp_path), towers=(str(folder),), split="leave-last", replicates=100))
    assert not list(tmp_path.glob("[!.]*"))


def test_a_sample_is_a_sample_in_the_metrics_too(tower: tuple[Path, Path], tmp_path: Path):
    log, folder = tower
    metrics = run(
        Evaluate(
            log=str(log), out=str(tmp_path), towers=(str(folder),), split="leave-last", max_examples=20, replicates=100
        )
    ).metrics
    assert metrics["split"]["sampled"] is True
    assert metrics["split"]["test_examples"] == 20
    assert metrics["models"]["mean"]["replay"]["all"]["recall_at_10"]["n"] == 20


def test_a_tower_of_another_split_or_log_is_refused_in_a_sentence(tower: tuple[Path, Path], tmp_path: Path):
    log, folder = tower
    with pytest.raises(
        SettingsError, match=r"was trained on the split leave-last, not temporal, until .*Z: it may have"
    ):
        run(Evaluate(log=str(log), out=str(tmp_path / "out"), towers=(str(folder),)))
    other = write_log(tmp_path / "other.parquet", users=61)
    with pytest.raises(SettingsError, match=r"was trained on the log [0-9a-f]{12}, not [0-9a-f]{12}"):
        run(Evaluate(log=str(other), out=str(tmp_path / "out"), towers=(str(folder),), split="leave-last"))
    with pytest.raises(SettingsError, match="is a second tower that is called mean"):
        run(Evaluate(log=str(log), out=str(tmp_path / "out"), towers=(str(folder),) * 2, split="leave-last"))
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_yesterdays_tower_is_judged_on_todays_log(tmp_path: Path):
    today = write_log(tmp_path / "today.parquet", length=20)
    events = pl.read_parquet(today)
    yesterday = tmp_path / "yesterday.parquet"
    events.filter(pl.col("at") < START + 21 * DAY).write_parquet(yesterday)
    train(load_config(TowerTraining, log=str(yesterday), out=str(tmp_path / "mean"), **SHORT))
    out = tmp_path / "out"
    metrics = run(Evaluate(log=str(today), out=str(out), towers=(str(tmp_path / "mean"),), replicates=100)).metrics
    trained_until_ms = START + 20 * DAY - 2 * DAY + 1  # a tenth of twenty days before the last listen of yesterday
    assert metrics["training"]["mean"]["trained_until_ms"] == trained_until_ms
    assert metrics["drift"]["trained_until_ms"] == {"mean": trained_until_ms}
    assert "mean was trained on another log, until 2023-12-02, and this test begins 2.7 days" in " ".join(
        metrics["verdict"]
    )
    assert len(metrics["drift"]["figures"]["mean"]["ndcg_at_10"]) == 4
    assert "How it ages" in (out / "report.html").read_text()
    with pytest.raises(SettingsError, match=r"until 2023-12-02T.*Z, and this test begins 2023-11-28T.*: it may have"):
        run(Evaluate(log=str(today), out=str(out), towers=(str(tmp_path / "mean"),), test_share=0.4, replicates=100))


def test_a_tower_of_strange_tracks_is_refused_in_a_sentence(tower: tuple[Path, Path], tmp_path: Path):
    other = write_log(tmp_path / "other.parquet", length=40)
    renamed = pl.read_parquet(other).with_columns(pl.col("track_id").str.replace("t", "other-"))
    renamed.write_parquet(other)
    with pytest.raises(SettingsError, match="knows no track of"):
        run(Evaluate(log=str(other), out=str(tmp_path / "out"), towers=(str(tower[1]),)))


def test_a_log_that_leaves_nothing_to_judge_ends_the_command_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from offline import cli as module

    log = write_log(tmp_path / "log.parquet", length=2)
    monkeypatch.setattr("sys.argv", ["tastewave-offline", "evaluate", str(log), str(tmp_path / "out"), "--split",
                                     "leave-last"])  # fmt: skip
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("Error: the leave-last split of")
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_towers_that_are_given_are_judged_without_torch():
    probe = "import sys, offline.evaluation.evaluate; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "False\n"
