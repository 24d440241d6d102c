from dataclasses import FrozenInstanceError, asdict

import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SettingsError, TooShort
from models.mel import (
    ENCODER,
    MUSICNN,
    PATCH_FRAMES,
    MelConfig,
    _round_to_float16,
    log_mel,
    mel_filters,
    mel_power,
    musicnn_log_mel,
    patches,
)

CONFIGS = {
    "musicnn": MUSICNN,
    "our encoder": ENCODER,
    "htk without norm": MelConfig(sample_rate=16000, n_fft=512, hop_length=160, n_mels=64, htk=True, norm=None),
    "slaney without norm": MelConfig(sample_rate=22050, n_fft=2048, hop_length=512, n_mels=128, norm=None),
    "htk with norm": MelConfig(sample_rate=44100, n_fft=1024, hop_length=441, n_mels=80, htk=True, fmin=40, fmax=16000),
    "not centred": MelConfig(sample_rate=16000, n_fft=1024, hop_length=256, n_mels=96, center=False),
    "reflected": MelConfig(sample_rate=16000, n_fft=512, hop_length=256, n_mels=40, pad_mode="reflect", fmin=125.5),
    "between two edges": MelConfig(sample_rate=24000, n_fft=1200, hop_length=240, n_mels=96, fmin=40, fmax=11000),
    "edges held": MelConfig(sample_rate=8000, n_fft=400, hop_length=100, n_mels=32, pad_mode="edge", fmax=900),
    "odd frame": MelConfig(sample_rate=8000, n_fft=401, hop_length=100, n_mels=32),
}


def song(seconds: float, *, sample_rate: int = 16000, level: float = 0.5) -> np.ndarray:
    """A melody with overtones over noise, full scale at level 1."""
    rng = np.random.default_rng(7)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch = 110.0 * 2.0 ** (rng.integers(0, 36, int(seconds * 4) + 1) / 12.0)[(time * 4).astype(int)]
    phase = 2.0 * np.pi * np.cumsum(pitch) / sample_rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 12)) * np.exp(-3.0 * (time * 4 % 1.0))
    wave += 0.1 * rng.standard_normal(len(time)) * (time * 2 % 1.0 < 0.1)
    return (level * wave / np.abs(wave).max()).astype(np.float32)


def librosa_power(waveform: np.ndarray, config: MelConfig) -> np.ndarray:
    arguments = asdict(config) | {"sr": config.sample_rate}
    del arguments["sample_rate"]
    return librosa.feature.melspectrogram(y=waveform, **arguments).T


@pytest.mark.parametrize("name", CONFIGS)
def test_the_filters_are_librosas(name):
    config = CONFIGS[name]
    keys = ("n_fft", "n_mels", "fmin", "fmax", "htk", "norm")
    theirs = librosa.filters.mel(sr=config.sample_rate, **{key: getattr(config, key) for key in keys})
    np.testing.assert_allclose(mel_filters(config), theirs.T, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_spectrogram_is_librosas(name):
    config = CONFIGS[name]
    waveform = song(2.3, sample_rate=config.sample_rate)
    theirs = librosa_power(waveform, config)
    ours = mel_power(waveform, config)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(
        log_mel(waveform, config), librosa.power_to_db(theirs, ref=1.0, amin=1e-10, top_db=None), rtol=0, atol=1e-4
    )


def musicnn_log_mel_by_librosa(waveform: np.ndarray) -> np.ndarray:
    """musicnn 0.1.0's extractor.batch_data as it computes under NumPy 1: the product in float32."""
    rounded = librosa_power(waveform, MUSICNN).astype(np.float16).astype(np.float32)
    return np.log10(np.float32(10000) * rounded + np.float32(1))


def assert_equal_but_for_summation_order(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Sums of another order may put one power in a thousand on the other side of a float16 rounding."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-4)
    assert np.mean(ours != theirs) <= 1e-3


@pytest.mark.parametrize("level", [1e-6, 1e-4, 0.03, 1.0])
def test_musicnn_hears_what_its_own_extractor_computes(level):
    waveform = song(8.0, level=level)
    assert_equal_but_for_summation_order(musicnn_log_mel(waveform), musicnn_log_mel_by_librosa(waveform))


def test_a_loud_passage_stays_finite_where_numpy_2_overflows_float16():
    time = np.arange(5 * 16000) / 16000
    waveform = np.sign(np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    half = librosa_power(waveform, MUSICNN).astype(np.float16)
    with np.errstate(over="ignore"):
        assert np.isinf(np.log10(10000 * half + 1)).any()  # what musicnn 0.1.0 computes under NumPy >= 2
    ours = musicnn_log_mel(waveform)
    assert np.isfinite(ours).all()
    assert_equal_but_for_summation_order(ours, musicnn_log_mel_by_librosa(waveform))


def test_a_waveform_far_over_full_scale_stays_finite():
    ours = musicnn_log_mel(song(3.0, level=32768.0))
    assert np.isfinite(ours).all()
    assert ours.max() == np.float32(np.log10(np.float32(65504e4 + 1)))


def test_every_float16_and_what_lies_between_is_rounded_as_numpy_does():
    half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)  # 0 to 65504
    between = (half[1:] + half[:-1]) / 2  # exact in float32
    values = np.concatenate([half, between, np.nextafter(between, np.float32(0)), np.nextafter(between, half[1:])])
    np.testing.assert_array_equal(_round_to_float16(values), values.astype(np.float16).astype(np.float32))
    assert len(values) > 120_000


def test_silence_is_zero():
    log_mels = musicnn_log_mel(np.zeros(16000, np.float32))
    assert log_mels.shape == (63, 96)
    assert not log_mels.any()


def test_three_seconds_are_one_patch():
    assert patches(musicnn_log_mel(np.zeros(3 * 16000, np.float32))).shape == (1, 187, 96)


def test_thirty_seconds_are_ten_patches():
    assert patches(musicnn_log_mel(np.zeros(30 * 16000, np.float32))).shape == (10, 187, 96)


@given(frames=st.integers(PATCH_FRAMES, 900), hop=st.integers(1, 400))
def test_patches_are_the_frames_they_start_at_and_the_tail_is_dropped(frames, hop):
    spectrogram = np.arange(frames * 2, dtype=np.float32).reshape(frames, 2)
    cut = patches(spectrogram, hop)
    assert len(cut) == 1 + (frames - PATCH_FRAMES) // hop
    assert np.shares_memory(cut, spectrogram)
    for index, patch in enumerate(cut):
        np.testing.assert_array_equal(patch, spectrogram[index * hop : index * hop + PATCH_FRAMES])


def test_under_one_patch_is_too_short():
    with pytest.raises(TooShort, match="186 frames, and one patch takes 187"):
        patches(np.zeros((186, 96), np.float32))


@pytest.mark.parametrize("center", [True, False])
def test_no_samples_are_too_short(center):
    config = MelConfig(sample_rate=16000, n_fft=512, hop_length=256, n_mels=96, center=center, pad_mode="reflect")
    with pytest.raises(TooShort, match="0 samples, and one frame takes 512"):
        log_mel(np.zeros(0, np.float32), config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": 0}, "sample_rate"),
        ({"n_fft": 0}, "n_fft"),
        ({"hop_length": -1}, "hop_length"),
        ({"n_mels": 0}, "n_mels"),
        ({"fmin": -1.0}, "fmin"),
        ({"fmin": 8000.0}, "fmin"),
        ({"fmax": 8000.5}, "fmax"),
        ({"fmax": float("nan")}, "fmax"),
        ({"norm": "l1"}, "norm"),
        ({"pad_mode": "wrap"}, "pad_mode"),
    ],
)
def test_a_config_that_describes_no_spectrogram_is_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        MelConfig(**(asdict(MUSICNN) | change))


def test_a_config_and_its_filters_cannot_change():
    with pytest.raises(FrozenInstanceError):
        MUSICNN.n_mels = 1
    with pytest.raises(ValueError, match="read-only"):
        mel_filters(MUSICNN)[0, 0] = 1.0
