from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import helper

from models.audio_encoder import LogMelInput, WaveformInput, load_audio_encoder
from models.errors import ReleaseError, SettingsError
from models.mel import MelConfig
from offline.cli import cli
from tests.platform.encoders import write_filterbank, write_mean_mel, write_network


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_filterbank(tmp_path / "made", dim=12, sample_rate=24_000, window_s=10.0) / "audio_encoder.onnx"


def seal(network: Path, out: Path, *words: str):
    names = ["--name", "theirs", "--licence", "CC BY-NC 4.0"]
    return CliRunner().invoke(cli, ["seal-encoder", str(network), str(out), *names, *words])


WAVEFORM = ("input.kind=waveform", "input.sample_rate=24000", "window_s=10")


def test_any_network_becomes_an_encoder_with_what_goes_along_with_it(network: Path, tmp_path: Path):
    (tmp_path / "LICENSE-theirs.txt").write_text("as you like it")
    out = tmp_path / "encoders" / "theirs"
    done = seal(
        network, out, *WAVEFORM, "unit_norm=false", f'beside=["{tmp_path}/LICENSE-theirs.txt"]', "training.of=1"
    )
    assert done.exit_code == 0, done.exception
    assert done.output == f"{out}: theirs, 12-d, CC BY-NC 4.0\n"
    manifest = load_audio_encoder(out).manifest
    assert manifest.input == WaveformInput(sample_rate=24_000)
    assert (manifest.dim, manifest.window_s, manifest.unit_norm, manifest.training) == (12, 10.0, False, {"of": 1})
    assert manifest.files.keys() == {"audio_encoder.onnx", "LICENSE-theirs.txt"}


def test_a_network_that_takes_a_log_mel_is_described_in_one_word(tmp_path: Path):
    mel = MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=64)
    made = write_mean_mel(tmp_path / "made", mel=mel, frames=128, window_s=2.04)
    words = "input={kind='log_mel', frames=128, mel={sample_rate=16000, n_fft=512, hop_length=256, n_mels=64}}"
    done = seal(made / "audio_encoder.onnx", tmp_path / "out", words, "window_s=2.04")
    assert done.exit_code == 0, done.exception
    assert load_audio_encoder(tmp_path / "out").manifest.input == LogMelInput(mel=mel, frames=128)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("input.kind=waveform", "input.sample_rate=16000"), ReleaseError, r"as inputs .* 240000\), .* \(1, 480000\)"),
        (("input.kind=notes",), SettingsError, "notes"),
        (("input={kind='log_mel', frames=9, mel={sample_rate=8000, n_fft=0, hop_length=1, n_mels=1}}",), SettingsError,
         "n_fft of a MelConfig is 0"),
        ((*WAVEFORM, "window_s=0"), SettingsError, "window_s"),
    ],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_refused_and_leaves_nothing(
    network: Path, tmp_path: Path, words: tuple[str, ...], error: type[Exception], message: str
):
    done = seal(network, tmp_path / "out", *words)
    assert isinstance(done.exception, error)
    assert "\n" not in str(done.exception).strip()
    with pytest.raises(error, match=message):
        raise done.exception
    assert not (tmp_path / "out").exists()


def test_what_is_no_network_is_refused(tmp_path: Path):
    (tmp_path / "text.onnx").write_text("no network")
    done = seal(tmp_path / "text.onnx", tmp_path / "out", *WAVEFORM)
    assert isinstance(done.exception, SettingsError)
    assert "theirs is no network that ONNX Runtime loads" in str(done.exception)


def test_a_network_that_gives_a_vector_for_each_frame_is_refused_with_advice(tmp_path: Path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    weights = {"shape": np.array([1, 100, 2400], np.int64)}
    write_network(tmp_path / "frames.onnx", nodes, takes=[1, 240_000], gives=[1, 100, 2400], weights=weights)
    done = seal(tmp_path / "frames.onnx", tmp_path / "out", *WAVEFORM)
    assert isinstance(done.exception, SettingsError)
    assert "theirs gives (1, 100, 2400)" in str(done.exception)
    assert "export it with a mean over time" in str(done.exception)


def test_a_folder_of_something_else_is_not_replaced(network: Path, tmp_path: Path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "novel.txt").write_text("Chapter 1")
    done = seal(network, tmp_path / "documents", *WAVEFORM)
    assert isinstance(done.exception, SettingsError)
    assert (tmp_path / "documents" / "novel.txt").read_text() == "Chapter 1"
