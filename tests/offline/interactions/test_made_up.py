from pathlib import Path

import pytest
from click.testing import CliRunner

from offline.cli import cli
from offline.interactions.made_up import platform_caveat


def test_the_caveat_of_a_made_up_log_is_read_from_the_truth_beside_it(tmp_path: Path):
    listens = tmp_path / "listens"
    listens.mkdir()
    assert platform_caveat(str(listens)) is None
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "config.json").write_text('{"caveat": "All of it is made up.", "config": {}}')
    for where in (tmp_path, listens, listens / "*.parquet", listens / "part-0.parquet"):
        assert platform_caveat(str(where)) == "All of it is made up."
    assert platform_caveat("s3://bucket/listens") is None


@pytest.mark.parametrize("content", ["", "{}", '{"caveat": 7}', "[]"])
def test_a_file_of_somebody_else_that_is_called_so_is_no_caveat(tmp_path: Path, content: str):
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "config.json").write_text(content)
    assert platform_caveat(str(tmp_path)) is None


def test_a_platform_that_synth_makes_has_a_caveat(tmp_path: Path):
    options = ["--tracks", "20", "--users", "10", "--listens", "500", "--no-audio"]
    result = CliRunner().invoke(cli, ["synth", "platform", str(tmp_path / "platform"), *options])
    assert result.exit_code == 0, result.output
    caveat = "Figures measured on this platform are plumbing: they were programmed in."
    assert platform_caveat(str(tmp_path / "platform" / "listens")) == caveat
