from dataclasses import replace
from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pytest
from onnx import helper

from models.audio_encoder import (
    ENCODER_MANIFEST,
    EncoderManifest,
    LogMelInput,
    WaveformInput,
    load_audio_encoder,
    network_of,
)
from models.errors import ReleaseError, SettingsError, TooShort
from models.mel import ENCODER, log_mel
from models.sealed_folder import describe_files
from offline.audio_encoder.seal import seal
from tests.platform.encoders import filterbank, write_filterbank, write_mean_mel, write_network

NETWORK = network_of(ENCODER_MANIFEST)


def noise(samples: int, *, seed: int = 0, fading: bool = False) -> np.ndarray:
    wave = np.random.default_rng(seed).standard_normal(samples) * (np.linspace(0, 0.3, samples) if fading else 0.1)
    return np.convolve(wave, np.random.default_rng(seed + 1).standard_normal(30), mode="same").astype(np.float32)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_filterbank(tmp_path_factory.mktemp("encoder") / "foreign", dim=40, window_s=2.0)


def test_each_window_gets_what_the_network_gives_for_it_at_unit_norm(folder: Path):
    waveforms = [noise(32_000, seed=1), noise(32_000, seed=2, fading=True)]
    vectors = load_audio_encoder(folder)(waveforms)
    assert (vectors.shape, vectors.dtype) == ((2, 40), np.float32)
    np.testing.assert_allclose(vectors, [unit(filterbank(one, 40)) for one in waveforms], atol=1e-5)


def test_an_embedding_is_the_normalised_mean_over_the_windows(folder: Path):
    waveforms = [noise(32_000, seed=seed) for seed in (1, 2, 3)]
    expected = unit(sum(unit(filterbank(one, 40)) for one in waveforms))
    np.testing.assert_allclose(load_audio_encoder(folder).embedding(waveforms), expected, atol=1e-5)


def test_a_longer_waveform_is_heard_in_as_many_windows_as_it_has_and_its_end_is_not(folder: Path):
    waveform = noise(3 * 32_000 + 31_999, fading=True)
    expected = unit(sum(unit(filterbank(waveform[start : start + 32_000], 40)) for start in (0, 32_000, 64_000)))
    np.testing.assert_allclose(load_audio_encoder(folder)([waveform])[0], expected, atol=1e-5)


@pytest.mark.parametrize("samples", [31_999, 16_000, 9_000])
def test_a_shorter_waveform_is_repeated_until_it_fills_a_window(folder: Path, samples: int):
    waveform = noise(samples)
    expected = unit(filterbank(np.concatenate([waveform] * 4)[:32_000], 40))
    np.testing.assert_allclose(load_audio_encoder(folder)([waveform])[0], expected, atol=1e-5)


def test_the_length_of_vectors_stays_where_the_manifest_says_so(tmp_path: Path):
    encoder = load_audio_encoder(write_filterbank(tmp_path / "block", dim=7, window_s=2.0, unit_norm=False))
    waveform = noise(64_000, fading=True)
    halves = [filterbank(part, 7) for part in (waveform[:32_000], waveform[32_000:])]
    np.testing.assert_allclose(encoder([waveform])[0], np.mean(halves, axis=0), rtol=1e-4)
    assert np.linalg.norm(encoder.embedding([waveform])) == pytest.approx(1.0, abs=1e-6)


MELS = {
    "ours": ({}, 30.0, 938),
    "htk without norm": ({"sample_rate": 22_050, "n_fft": 2048, "n_mels": 40, "htk": True, "norm": None}, 5.0, 216),
    "not centred": ({"hop_length": 256, "n_mels": 64, "center": False}, 2.0, 122),
    "reflected, between two edges": (
        {"sample_rate": 24_000, "n_fft": 1200, "hop_length": 240, "fmin": 40, "fmax": 11_000, "pad_mode": "reflect"},
        3.0,
        301,
    ),
}


@pytest.mark.parametrize("name", MELS)
def test_a_network_that_takes_a_log_mel_gets_that_of_each_window(tmp_path: Path, name: str):
    changes, window_s, frames = MELS[name]
    mel = replace(ENCODER, **changes)
    encoder = load_audio_encoder(
        write_mean_mel(tmp_path / "mel", mel=mel, frames=frames, window_s=window_s, unit_norm=False)
    )
    assert (encoder.sample_rate, encoder.manifest.shape) == (mel.sample_rate, (1, frames, mel.n_mels))
    waveform = noise(round(window_s * mel.sample_rate), fading=True)
    decibels = log_mel(waveform, mel).astype(np.float16).astype(np.float32)  # as a feature store keeps them
    assert len(decibels) == frames
    np.testing.assert_allclose(encoder([waveform])[0], decibels.mean(axis=0), atol=1e-4)


def test_a_network_may_take_fewer_frames_than_a_window_has(tmp_path: Path):
    encoder = load_audio_encoder(write_mean_mel(tmp_path / "mel", frames=30, window_s=1.0, unit_norm=False))
    waveform = noise(16_000, fading=True)
    changed = np.concatenate([waveform[:15_600], -waveform[15_600:]])  # which frame 31 alone hears
    np.testing.assert_array_equal(encoder([waveform]), encoder([changed]))


def test_a_window_with_too_few_frames_for_the_network_is_refused():
    with pytest.raises(SettingsError, match="a window of 1 s has 32 frames, the network takes 33"):
        EncoderManifest(name="n", licence="l", dim=1, input=LogMelInput(mel=ENCODER, frames=33), window_s=1.0, files={})


def test_no_samples_are_too_short(folder: Path):
    with pytest.raises(TooShort, match="has no samples"):
        load_audio_encoder(folder)([np.empty(0, np.float32)])


def described(folder: Path, **changes: object) -> Path:
    """The encoder with another manifest."""
    manifest = load_audio_encoder(folder).manifest
    other = folder.with_name("described")
    other.mkdir()
    (other / NETWORK).write_bytes((folder / NETWORK).read_bytes())
    changed = msgspec.structs.replace(manifest, **changes)
    (other / ENCODER_MANIFEST).write_bytes(msgspec.json.encode(changed))
    return other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 41}, r"as outputs tensor\(float\) \('n', 40\), its manifest asks for one tensor\(float\) \(1, 41\)"),
        ({"window_s": 2.5}, r"as inputs tensor\(float\) \('n', 32000\), its manifest asks for .* \(1, 40000\)"),
        ({"input": WaveformInput(sample_rate=24_000)}, r"inputs .* \(1, 48000\)"),
        ({"input": LogMelInput(mel=ENCODER, frames=60)}, r"inputs .* \(1, 60, 96\)"),
        ({"files": {}}, "does not list audio_encoder.onnx"),
    ],
)
def test_a_manifest_that_says_something_else_than_the_network_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
):
    made = write_filterbank(tmp_path / "encoder", dim=40, window_s=2.0)
    with pytest.raises(ReleaseError, match=message):
        load_audio_encoder(described(made, **changes))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"frames": 938', '"frames": 939', "contradicts itself: a window of 30 s has 938 frames"),
        ('"n_mels": 96', '"n_mels": 0', "contradicts itself: n_mels of a MelConfig is 0"),
        ('"kind": "log_mel"', '"kind": "notes"', "cannot be read"),
        ('"window_s": 30.0', '"window_s": 0.0', "cannot be read"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, old: str, new: str, message: str):
    path = write_mean_mel(tmp_path / "mel", frames=938) / ENCODER_MANIFEST
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ReleaseError, match=message):
        load_audio_encoder(tmp_path / "mel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / NETWORK).unlink(), "audio_encoder.onnx is missing"),
        (lambda folder: (folder / NETWORK).write_bytes(b"x"), "is not the file"),
        (lambda folder: (folder / ENCODER_MANIFEST).unlink(), r"has no readable audio_encoder\.json"),
    ],
)
def test_a_damaged_encoder_is_refused(tmp_path: Path, change, message: str):
    change(write_filterbank(tmp_path / "encoder", dim=4, window_s=1.0))
    with pytest.raises(ReleaseError, match=message):
        load_audio_encoder(tmp_path / "encoder")


def test_numbers_that_are_not_finite_and_vectors_that_point_nowhere_are_refused_in_one_sentence(tmp_path: Path):
    encoder = load_audio_encoder(write_filterbank(tmp_path / "encoder", dim=4, window_s=1.0))
    with pytest.raises(ReleaseError, match=r"filterbank gave a vector of length 0, which points nowhere; [^.]+"):
        encoder([np.zeros(16_000, np.float32)])
    with pytest.raises(ReleaseError, match=r"filterbank gave numbers that are not finite; [^.]+"):
        encoder([np.full(16_000, np.nan, np.float32)])


def test_a_network_that_gives_another_shape_than_it_announces_is_refused(tmp_path: Path):
    nodes = [helper.make_node("Slice", ["x", "begin", "end", "axis"], ["y"])]
    weights = {name: np.array([number], np.int64) for name, number in (("begin", 0), ("end", 6), ("axis", 1))}
    write_network(tmp_path / NETWORK, nodes, takes=[1, "samples"], gives=[1, "dim"], weights=weights)
    with pytest.raises(SettingsError, match="one vector"):
        seal(tmp_path, name="open", licence="l", takes=WaveformInput(sample_rate=16_000), window_s=1.0, training={})
    files = describe_files(tmp_path)
    manifest = EncoderManifest(
        name="open", licence="l", dim=5, input=WaveformInput(sample_rate=16_000), window_s=1.0, files=files
    )
    (tmp_path / ENCODER_MANIFEST).write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(ReleaseError, match=r"gave \(1, 6\) where its manifest says \(1, 5\)"):
        load_audio_encoder(tmp_path)([noise(16_000)])


def test_an_encoder_at_a_url_is_copied_and_gives_the_same(folder: Path):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/encoders/foreign", recursive=True)
    waveform = noise(32_000)
    there = load_audio_encoder("memory://encoders/foreign")
    np.testing.assert_array_equal(there([waveform]), load_audio_encoder(folder)([waveform]))
