import numpy as np
import pytest
import scipy.signal
import soxr

from models.audio.loudness import integrated_loudness, made_as_loud

RATE = 48_000


def sine(duration_s, *, dbfs, hertz=997, rate=RATE):
    t = np.arange(round(duration_s * rate)) / rate
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def loudness(*parts, rate=RATE):
    return integrated_loudness([np.concatenate(parts)], sample_rate=rate)


# The two filters of BS.1770-5 at 48 kHz, as its annex 1 prints them.
STANDARD_FILTERS = np.array(
    [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
)


class TestIntegratedLoudness:
    @pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000, 192_000])
    def test_a_full_scale_sine_of_997_hz_in_one_channel_is_3_01_lufs_below_0(self, rate):  # BS.1770-5, annex 1
        assert loudness(sine(5, dbfs=0, rate=rate), rate=rate) == pytest.approx(-3.01, abs=0.05)

    # EBU Tech 3341, signals 1 to 5; these are of one channel instead of two, so 3.01 dB quieter.
    @pytest.mark.parametrize(
        ("levels", "expected"),
        [
            ([(20, -23)], -23),
            ([(20, -33)], -33),
            ([(10, -36), (60, -23), (10, -36)], -23),
            ([(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)], -23),
            ([(20, -26), (20.1, -20), (20, -26)], -23),
        ],
    )
    def test_the_signals_of_the_ebu_measure_what_the_ebu_says(self, levels, expected):
        signal = [sine(seconds, dbfs=dbfs, hertz=1000) for seconds, dbfs in levels]
        assert loudness(*signal) == pytest.approx(expected - 3.01, abs=0.1)

    def test_noise_and_bass_are_weighted_by_the_filters_of_the_standard(self):
        noise = 0.05 * np.random.default_rng(3).standard_normal(10 * RATE).astype(np.float32)
        waveform = noise + sine(10, dbfs=-12, hertz=40)
        weighted = scipy.signal.sosfilt(STANDARD_FILTERS, waveform.astype(np.float64))
        assert loudness(waveform) == pytest.approx(-0.691 + 10 * np.log10(np.mean(weighted**2)), abs=0.02)

    @pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
    def test_the_sample_rate_makes_little_difference(self, rate):
        noise = 0.05 * np.random.default_rng(3).standard_normal(10 * 6000).astype(np.float32)
        at_48, at_rate = (soxr.resample(noise, 6000, to) for to in (RATE, rate))
        assert loudness(at_rate, rate=rate) == pytest.approx(loudness(at_48), abs=0.15)

    def test_windows_are_gated_together(self):
        loud, quiet = sine(10, dbfs=-20), sine(10, dbfs=-50)
        assert integrated_loudness([loud, quiet], sample_rate=RATE) == pytest.approx(loudness(loud), abs=0.02)

    @pytest.mark.parametrize("waveform", [np.zeros(RATE, np.float32), sine(5, dbfs=-72), sine(0.3, dbfs=0)])
    def test_what_is_below_the_gate_or_too_short_has_no_loudness(self, waveform):
        assert loudness(waveform) == -np.inf


class TestMadeAsLoud:
    def test_all_windows_get_one_gain_and_are_as_loud_as_asked_for(self):
        windows = [sine(10, dbfs=-20), sine(10, dbfs=-26)]
        louder = made_as_loud(windows, lufs=-14, sample_rate=RATE)
        assert integrated_loudness(louder, sample_rate=RATE) == pytest.approx(-14, abs=0.01)
        assert louder[0].dtype == np.float32
        assert np.allclose(louder[0] / 2, louder[1], rtol=0.01, atol=1e-3)

    def test_what_has_no_loudness_stays_as_it_is(self):
        hiss = sine(5, dbfs=-80)
        assert np.array_equal(made_as_loud([hiss], lufs=-14, sample_rate=RATE)[0], hiss)
