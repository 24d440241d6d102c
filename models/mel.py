"""Waveform -> log-mel spectrogram -> patches: the one module that owns sample rate, hop length and mels.

The front end of musicnn as the published network is fed by it (musicnn 0.1.0, extractor.batch_data), and the
same spectrogram for any other MelConfig, as librosa.feature.melspectrogram computes it (Slaney's Auditory
Toolbox, 1998, for the mel scale and the area norm; HTK's for the other scale). numpy alone: scipy.fft takes
a third of a second to import and saves less than 1 ms a track.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.errors import SettingsError, TooShort

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

FRONT_END = "musicnn-1"
"""Names musicnn_log_mel in releases and features events: change it whenever its values change."""

PATCH_FRAMES = 187
"""Frames of one musicnn input: 3 s."""

_BLOCK_FRAMES = 256  # of the short-time Fourier transform at a time: its float64 work stays in the cache
_FLOAT16_MAX = np.float32(65504.0)
_FLOAT16_MIN_NORMAL = np.float32(2.0**-14)
_FLOAT32_EXPONENT = np.uint32(0x7F800000)


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """A mel power spectrogram, named as in librosa.feature.melspectrogram (Hann window of n_fft, power 2).

    Attributes:
        sample_rate: of the waveform, Hz.
        n_fft: samples of a frame.
        hop_length: samples from one frame to the next.
        n_mels: bands.
        fmin: lower edge of the first band, Hz.
        fmax: upper edge of the last band, Hz; half the sample rate when None.
        htk: HTK's mel scale instead of Slaney's.
        norm: "slaney" gives each band unit area, None unit height.
        center: frame t is centred on sample t * hop_length; otherwise it starts there.
        pad_mode: what centred frames see beyond both ends, a mode of numpy.pad.

    Raises:
        SettingsError: the numbers do not describe a spectrogram.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    fmin: float = 0.0
    fmax: float | None = None
    htk: bool = False
    norm: Literal["slaney"] | None = "slaney"
    center: bool = True
    pad_mode: Literal["constant", "reflect", "edge"] = "constant"

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
            if (value := getattr(self, name)) < 1:
                raise SettingsError(f"{name} of a MelConfig is {value}; give at least 1")
        if not 0.0 <= self.fmin < self.top_hz <= self.sample_rate / 2:
            raise SettingsError(
                f"a MelConfig has bands from {self.fmin} to {self.top_hz} Hz at {self.sample_rate} Hz; "
                "give 0 <= fmin < fmax <= sample_rate / 2"
            )
        if self.norm not in ("slaney", None):
            raise SettingsError(f"norm of a MelConfig is {self.norm!r}; give 'slaney' or None")
        if self.pad_mode not in ("constant", "reflect", "edge"):
            raise SettingsError(f"pad_mode of a MelConfig is {self.pad_mode!r}; give 'constant', 'reflect' or 'edge'")

    @property
    def top_hz(self) -> float:
        """Upper edge of the last band, Hz."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax


MUSICNN = MelConfig(sample_rate=16000, n_fft=512, hop_length=256, n_mels=96)

ENCODER = MelConfig(sample_rate=16000, n_fft=1024, hop_length=512, n_mels=96)
"""What our own audio encoder hears: of the waveform that musicnn hears, 938 frames in 30 s."""


def musicnn_log_mel(waveform: Float32) -> Float32:
    """The log-mel spectrogram that musicnn hears.

        waveform = decode_whole("song.mp3", sample_rate=MUSICNN.sample_rate, max_duration_s=600)  # models.audio.windows
        log_mel = musicnn_log_mel(waveform)

    Args:
        waveform: (samples,) mono at MUSICNN.sample_rate, full scale +-1.

    Returns:
        (1 + samples // 256, 96), log10(10000 power + 1) with the power rounded to float16: 0 in silence,
        about 6 in loud music. Finite for every finite waveform: powers that float16 cannot hold (far over
        full scale) are held at its maximum.
    """
    # Under NumPy >= 2, musicnn's own `10000 * power` stays in float16 and overflows from a power of 6.55 on;
    # under the NumPy 1 that it was made with, the product was float32, as here.
    log_mel = _round_to_float16(mel_power(waveform, MUSICNN))
    log_mel *= np.float32(10000.0)
    log_mel += np.float32(1.0)
    return np.log10(log_mel, out=log_mel)


def log_mel(waveform: Float32, config: MelConfig) -> Float32:
    """A mel spectrogram in decibels: librosa.power_to_db(melspectrogram, ref=1, amin=1e-10, top_db=None).

    Args:
        waveform: (samples,) mono at config.sample_rate.
        config: which spectrogram.

    Returns:
        (frames, config.n_mels), dB over a power of 1, at least -100.

    Raises:
        TooShort: there is not one whole frame.
    """
    power = mel_power(waveform, config)
    np.log10(np.maximum(power, np.float32(1e-10), out=power), out=power)
    power *= np.float32(10.0)
    return power


def mel_power(waveform: Float32, config: MelConfig) -> Float32:
    """The mel power spectrogram (frames, config.n_mels) of a waveform (samples,), as librosa's, transposed.

    Raises:
        TooShort: there is not one whole frame.
    """
    if config.center and len(waveform):
        waveform = np.pad(waveform, config.n_fft // 2, mode=config.pad_mode)
    if len(waveform) < config.n_fft:
        raise TooShort(f"the waveform has {len(waveform)} samples, and one frame takes {config.n_fft}; give more audio")
    window, filters = _window(config.n_fft), mel_filters(config)
    frames = sliding_window_view(waveform, config.n_fft)[:: config.hop_length]
    power = np.empty((len(frames), config.n_mels), np.float32)
    for start in range(0, len(frames), _BLOCK_FRAMES):
        block = slice(start, start + _BLOCK_FRAMES)
        # float64 until here, as librosa: float32 would move one value in 1,600 to the next float16
        spectrum = np.fft.rfft(frames[block] * window, axis=1).astype(np.complex64)
        magnitude = np.abs(spectrum)
        magnitude *= magnitude
        np.matmul(magnitude, filters, out=power[block])
    return power


def patches(log_mel: Float32, hop: int = PATCH_FRAMES) -> Float32:
    """The inputs of musicnn in a log-mel spectrogram.

    Args:
        log_mel: (frames, mels).
        hop: frames from the start of one patch to the start of the next; PATCH_FRAMES leaves no overlap.

    Returns:
        (patches, PATCH_FRAMES, mels), a read-only view; frames after the last whole patch are dropped.

    Raises:
        TooShort: there is not one whole patch.
    """
    if len(log_mel) < PATCH_FRAMES:
        raise TooShort(f"the audio has {len(log_mel)} frames, and one patch takes {PATCH_FRAMES}; give 3 s or more")
    return sliding_window_view(log_mel, PATCH_FRAMES, axis=0)[::hop].transpose(0, 2, 1)


@lru_cache(maxsize=8)
def mel_filters(config: MelConfig) -> Float32:
    """The triangular filters (1 + n_fft // 2, n_mels) of a MelConfig: librosa.filters.mel, transposed, read-only."""
    fft_hz = np.arange(1 + config.n_fft // 2) * (config.sample_rate / config.n_fft)
    low, high = _hz_to_mel(config.fmin, htk=config.htk), _hz_to_mel(config.top_hz, htk=config.htk)
    edges_hz = _mel_to_hz(np.linspace(low, high, config.n_mels + 2), htk=config.htk)
    ramps = edges_hz[:, None] - fft_hz
    widths = np.diff(edges_hz)[:, None]
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    if config.norm == "slaney":
        filters *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    filters = np.ascontiguousarray(filters.T)
    filters.flags.writeable = False
    return filters


# Slaney's scale: linear up to 1 kHz (200/3 Hz a mel), then 27 mels for each factor of 6.4.
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def _hz_to_mel(hz: float, *, htk: bool) -> float:
    if htk:
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    if hz < _LOG_FROM_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return _LOG_FROM_MEL + math.log(hz / _LOG_FROM_HZ) / _LOG_STEP


def _mel_to_hz(mel: Float64, *, htk: bool) -> Float64:
    if htk:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    linear, log = _LINEAR_HZ_PER_MEL * mel, _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel - _LOG_FROM_MEL))
    return np.where(mel < _LOG_FROM_MEL, linear, log)


@lru_cache(maxsize=8)
def _window(n_fft: int) -> Float64:
    return 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, n_fft + 1)[:-1])  # Hann, periodic


def _round_to_float16(power: Float32) -> Float32:
    """Non-negative float32 values rounded to float16 (nearest, ties to even) and held at its maximum, as float32.

    Twenty times as fast as numpy's conversion there and back. Within the octave of 2^e, float16 steps by
    2^(e - 10), and so does float32 within that of 2^(e + 13): adding 2^(e + 13) rounds, subtracting it
    restores. Under 2^-14 float16 keeps the last step (subnormal numbers), and so does the clamped exponent.
    """
    power = np.minimum(power, _FLOAT16_MAX)
    octave = (np.maximum(power, _FLOAT16_MIN_NORMAL).view(np.uint32) & _FLOAT32_EXPONENT).view(np.float32)
    octave *= np.float32(2.0**13)
    power += octave
    power -= octave
    return power
