import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.errors import SettingsError
from offline.cli import cli
from offline.genre.labels import read_taggrams
from offline.genre.score import score_genre, wilson
from offline.genre.train import train
from tests.offline.genre.taggrams import CONFIG, platform, write_platform


def test_the_wilson_interval_has_its_known_value():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == pytest.approx(0.0, abs=1e-9)
    assert wilson(10, 10)[1] == pytest.approx(1.0, abs=1e-9)


def test_a_score_counts_every_track_once_and_can_be_searched(tmp_path: Path):
    trained = train(CONFIG, **platform())
    tracks = read_taggrams(write_platform(tmp_path) / "train.npz", classes=3)
    assert score_genre(trained.head, tracks).accuracy == 1.0
    labels = tracks.labels.copy()
    labels[:6] = 1
    score = score_genre(trained.head, dataclasses.replace(tracks, labels=labels))
    assert score.confusion.tolist() == [[9, 0, 0], [6, 15, 0], [0, 0, 15]]
    assert score.accuracy == 39 / 45
    assert score.macro_f1 == pytest.approx((18 / 24 + 30 / 36 + 1) / 3)
    lines = score.lines()
    assert lines[:2] == ["accuracy 0.867", "n 45"]
    assert [line.split() for line in lines[-3:]] == [
        ["folk", "9", "0", "0"],
        ["metal", "6", "15", "0"],
        ["ska", "0", "0", "15"],
    ]


def test_scoring_needs_none_of_the_training_libraries():
    code = "import sys, offline.genre.score, offline.genre.labels; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.split())
    assert "offline.genre.score" in modules
    assert modules.isdisjoint({"sklearn", "torch", "librosa", "onnxruntime"})


def test_score_genre_of_a_file_that_is_none_is_one_sentence(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"nothing of the kind")
    result = CliRunner().invoke(cli, ["score-genre", str(tmp_path / "x.npz")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SettingsError)
    assert "cannot be read as taggrams" in str(result.exception)
