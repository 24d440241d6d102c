"""How loud audio is (ITU-R BS.1770-5, integrated loudness), and audio made as loud as other audio.

The filters of BS.1770 are given for 48 kHz; for other rates they follow from the analogue filters behind them, as in
libebur128: at 16 kHz the loudness is within 0.15 LU. They are applied by FFT: scipy would take a third of a second
to import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.audio.blocks import Float32

_BLOCK_S, _STEP_S = 0.4, 0.1
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
_OFFSET_LU = -0.691  # cancels the filters' gain at 1 kHz
_RINGING_S = 0.5  # after which the filters' answer to a click is over


def integrated_loudness(waveforms: Sequence[Float32], *, sample_rate: int) -> float:
    """The loudness of some audio in all, LUFS: -23 is that of broadcasts, about -9 to -14 that of pop music.

        integrated_loudness([waveform], sample_rate=16_000)  # -14.2

    Args:
        waveforms: (samples,) each, mono, full scale +-1. They are measured one by one and gated together.
        sample_rate: Hz, a multiple of 10.

    Returns:
        -inf where nothing is louder than -70 LUFS for 0.4 s.
    """
    powers = np.concatenate([_block_powers(waveform, sample_rate) for waveform in waveforms])
    powers = powers[_lufs(powers) >= _ABSOLUTE_GATE_LUFS]
    if not len(powers):
        return -math.inf
    return float(_lufs(powers[_lufs(powers) >= _lufs(powers.mean()) + _RELATIVE_GATE_LU].mean()))


def made_as_loud(waveforms: Sequence[Float32], *, lufs: float, sample_rate: int) -> list[Float32]:
    """The same audio, amplified by one gain so that its integrated loudness is `lufs`; it may leave full scale.

    What integrated_loudness gives no loudness for stays as it is.
    """
    gain = gain_to(lufs, waveforms, sample_rate=sample_rate)
    return [waveform * gain for waveform in waveforms]


def gain_to(lufs: float, waveforms: Sequence[Float32], *, sample_rate: int) -> np.float32:
    """What some audio is multiplied with for an integrated loudness of `lufs`; 1 where it has no loudness."""
    loudness = integrated_loudness(waveforms, sample_rate=sample_rate)
    return np.float32(10 ** ((lufs - loudness) / 20) if math.isfinite(loudness) else 1.0)


def _lufs(power: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return _OFFSET_LU + 10 * np.log10(power)


def _block_powers(waveform: Float32, sample_rate: int) -> NDArray[np.float64]:
    """The mean squares of the weighted waveform in its blocks of 0.4 s, of which one begins every 0.1 s."""
    weighted = _k_weighted(waveform, sample_rate)
    step, steps = round(_STEP_S * sample_rate), round(_BLOCK_S / _STEP_S)
    whole = weighted[: len(weighted) // step * step].reshape(-1, step)
    powers = np.einsum("ij,ij->i", whole, whole, dtype=np.float64) / step
    if len(powers) < steps:
        return np.empty(0)
    return np.lib.stride_tricks.sliding_window_view(powers, steps).mean(axis=1)


def _k_weighted(waveform: Float32, sample_rate: int) -> Float32:
    size = 1 << math.ceil(math.log2(len(waveform) + _RINGING_S * sample_rate))
    spectrum = np.fft.rfft(waveform, size) * _k_response(size, sample_rate)
    return np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32, copy=False)


@lru_cache(maxsize=4)
def _k_response(size: int, sample_rate: int) -> NDArray[np.complex64]:
    """What the K-weighting does to each frequency of an FFT of this size."""
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    response = np.ones_like(z)
    for numerator, denominator in (_shelf(sample_rate), _high_pass(sample_rate)):
        response *= np.polyval(numerator[::-1], z) / np.polyval(denominator[::-1], z)
    return response.astype(np.complex64)


def _shelf(sample_rate: int) -> tuple[list[float], list[float]]:
    """The first filter, the effect of a head: +4 dB above 1.7 kHz. Coefficients of z^0, z^-1, z^-2."""
    k, q = math.tan(math.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    return (
        [(high + band * k / q + k * k) / a0, 2 * (k * k - high) / a0, (high - band * k / q + k * k) / a0],
        [1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0],
    )


def _high_pass(sample_rate: int) -> tuple[list[float], list[float]]:
    """The second filter: what lies below 38 Hz is hardly heard. Coefficients of z^0, z^-1, z^-2."""
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    a0 = 1 + k / q + k * k
    return [1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]
