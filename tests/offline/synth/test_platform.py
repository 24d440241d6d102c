"""The files of a synthetic platform: its log, its audio and its truth."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner
from msgspec.structs import replace
from scipy.stats import spearmanr

from models.errors import SettingsError
from offline.cli import cli
from offline.synth import platform as synth_platform
from offline.synth.music import synthesise
from offline.synth.platform import CAVEAT
from offline.synth.sounds import SAMPLE_RATE, band
from tests.offline.synth.platforms import CONFIG, TINY, make


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) >= 7
    return files


def test_equal_settings_give_equal_bytes_and_another_seed_another_log(platform: Path, tmp_path: Path):
    make(CONFIG, tmp_path / "again")
    make(replace(CONFIG, seed=4), tmp_path / "other")
    assert contents(tmp_path / "again") == contents(platform)
    assert not pl.read_parquet(tmp_path / "other" / "listens").equals(pl.read_parquet(platform / "listens"))


def test_a_platform_without_audio_has_the_same_listens(tiny: Path, tmp_path: Path):
    make(replace(TINY, no_audio=True), tmp_path / "silent")
    silent, heard = contents(tmp_path / "silent"), contents(tiny)
    assert len(heard) == len(silent) + TINY.tracks
    differ = {name for name in silent if silent[name] != heard[name]}
    assert differ == {"tracks.parquet", "truth/config.json"}  # the paths of the audio, and its format


def test_a_large_log_is_several_files_of_several_row_groups(
    platform: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synth_platform, "LISTENS_PER_FILE", 15_000)
    monkeypatch.setattr(synth_platform, "ROW_GROUP", 4_000)
    make(CONFIG, tmp_path / "parts")
    parts = sorted((tmp_path / "parts" / "listens").iterdir())
    assert [path.name for path in parts] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert pl.read_parquet(parts).equals(pl.read_parquet(platform / "listens"))
    import pyarrow.parquet as pq

    assert pq.ParquetFile(parts[0]).num_row_groups == 4


def test_the_truth_holds_the_seed_and_says_that_figures_are_plumbing(platform: Path):
    config = msgspec.json.decode((platform / "truth" / "config.json").read_bytes())
    assert config["config"]["seed"] == 3
    assert config["caveat"] == CAVEAT
    assert "plumbing: they were programmed in" in (platform / "truth" / "README.md").read_text()


def test_every_track_has_audio_of_its_style_as_bright_as_the_truth_says(tiny: Path):
    tracks = pl.read_parquet(tiny / "tracks.parquet").join(
        pl.read_parquet(tiny / "truth" / "tracks.parquet"), on="track_id"
    )
    assert tracks["style"].n_unique() == 8
    assert tracks["artist_id"].n_unique() == 8
    highs = []
    for track in tracks.to_dicts():
        waveform, sample_rate = soundfile.read(tiny / track["audio"], dtype="float32")
        assert waveform.shape == (3 * SAMPLE_RATE, 2)
        assert sample_rate == SAMPLE_RATE
        plain = synthesise(track["style"], seed=track["audio_seed"], duration_s=3.0)
        lows = (band(np.ascontiguousarray(wave[:, 0]), high_hz=500.0) for wave in (waveform, plain))
        assert np.corrcoef(*lows)[0, 1] > 0.99
        powers = [np.abs(np.fft.rfft(wave[:, 0])) ** 2 for wave in (waveform, plain)]
        highs.append(np.log(np.divide(*(power[6 * 3_000 :].sum() / power.sum() for power in powers))))
    assert spearmanr(highs, tracks["brightness"]).statistic > 0.8


def test_a_platform_is_replaced_and_anything_else_is_left_alone(tmp_path: Path):
    config = replace(TINY, no_audio=True)
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "empty", "new/inner"):
        make(config, tmp_path / folder)
        assert (tmp_path / folder / "tracks.parquet").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SettingsError, match="mine holds files of something else; name a new folder"):
        make(config, tmp_path / "mine")
    with pytest.raises(SettingsError, match=r"letter\.txt holds files of something else"):
        make(config, tmp_path / "mine" / "letter.txt")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine", "new"]


@pytest.mark.parametrize(("limit", "options"), [(4_000, ["--no-audio"]), (100_000, ["--format", "wav"])])
def test_where_no_more_can_be_written_it_is_one_sentence_and_nothing_stays(limit, options, tmp_path: Path):
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "if __name__ == '__main__':\n    from offline.cli import main; main()"
    )
    script, out = tmp_path / "limited.py", tmp_path / "platforms" / "one"
    script.write_text(program)
    result = subprocess.run(
        [sys.executable, script, "synth", "platform", out, "--listens", "500", "--tracks", "8", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: the platform cannot be written to {out} (")
    assert result.stderr.count("\n") == 1
    assert list(out.parent.iterdir()) == []


def test_the_command_makes_a_platform_and_says_what_its_figures_are(tmp_path: Path):
    folder = str(tmp_path / "platform")
    options = ["--tracks", "20", "--users", "10", "--listens", "500", "--artists", "9", "--no-audio"]
    result = CliRunner().invoke(cli, ["synth", "platform", folder, *options])
    assert result.exit_code == 0, result.output
    assert f"{folder}: 500 listens of 10 users to 20 tracks. {CAVEAT}" in result.output
    assert pl.read_parquet(tmp_path / "platform" / "tracks.parquet")["artist_id"].n_unique() == 9
