"""Synthetic music: the same from the same seed, of the asked length, in tune, and different from style to style."""

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from models.errors import SettingsError
from offline.cli import cli
from offline.synth.music import FORMATS, STYLES, chord, nearest, synthesise, voiced, write_tracks
from offline.synth.sounds import SAMPLE_RATE, SAW, Piece, bowed, kick, piano, pitch_hz, string, tone


def loudest_hz(wave: np.ndarray, *, below_hz: float) -> float:
    """Frequency of the strongest partial, to about 0.1 Hz (parabola through the peak of a padded spectrum)."""
    spectrum = np.log(np.abs(np.fft.rfft(wave * np.hanning(wave.size), 4 * wave.size)) + 1e-12)
    hz_per_bin = SAMPLE_RATE / (4 * wave.size)
    k = int(np.argmax(spectrum[: int(below_hz / hz_per_bin)]))
    left, peak, right = spectrum[k - 1 : k + 2]
    return (k + 0.5 * (left - right) / (left - 2 * peak + right)) * hz_per_bin


def spectral_profile(wave: np.ndarray) -> np.ndarray:
    """Power in 40 bands of equal musical width, in dB around their mean: a crude fingerprint of a style."""
    power = np.abs(np.fft.rfft(wave.mean(axis=1))) ** 2
    edges = np.geomspace(40, 16_000, 41) * wave.shape[0] / SAMPLE_RATE
    bands = np.array([power[int(a) : int(b) + 1].sum() for a, b in pairwise(edges)])
    decibels = 10 * np.log10(bands / bands.sum() + 1e-9)
    return decibels - decibels.mean()


def test_a4_is_440_hz_and_an_octave_doubles_it():
    assert pitch_hz(69) == 440.0
    assert pitch_hz(81) == pytest.approx(880.0)
    assert pitch_hz(60) == pytest.approx(261.6256, abs=1e-4)


@pytest.mark.parametrize("note", [28, 45, 60, 76, 93])
@pytest.mark.parametrize(("instrument", "cents"), [(piano, 2), (bowed, 15)], ids=["piano", "bowed with vibrato"])
def test_instruments_are_in_tune(instrument, cents, note):
    hz = pitch_hz(note)
    loudest = loudest_hz(instrument(hz, 1.0), below_hz=min(8 * hz, SAMPLE_RATE / 2))
    assert abs(1200 * np.log2(loudest / (hz * round(loudest / hz)))) < cents


def test_no_partial_lies_above_half_the_sample_rate():
    wave = tone(7000.0, 0.5, partials=SAW)
    power = np.abs(np.fft.rfft(wave * np.hanning(wave.size))) ** 2
    hz = np.fft.rfftfreq(wave.size, 1 / SAMPLE_RATE)
    expected = np.isclose(hz % 7000.0, 0, atol=20) | np.isclose(hz % 7000.0, 7000, atol=20)
    assert power[~expected].sum() < 1e-4 * power.sum()


def test_the_high_harmonics_of_a_string_die_first():
    wave = string(110.0, 1.5, brightness=0.8, decay_s=1.0, damping=0.05)
    early, late = (np.abs(np.fft.rfft(wave[start : start + SAMPLE_RATE // 2])) for start in (0, SAMPLE_RATE))
    fundamental, tenth = slice(50, 60), slice(540, 560)  # bins of 2 Hz
    assert late[tenth].max() / early[tenth].max() < 0.2 * late[fundamental].max() / early[fundamental].max()


def test_chords_follow_each_other_without_leaps():
    assert voiced(chord(60), near=64) == [60, 64, 67]
    assert voiced(chord(65), near=64) == [60, 65, 69]
    assert nearest(61, chord(60)) == 60
    assert nearest(71, chord(60)) == 72


def test_swing_moves_the_second_half_of_a_beat_and_nothing_else():
    piece = Piece(np.random.default_rng(0), bpm=60.0, duration_s=1.0, swing=0.66)
    assert [piece.at_s(beat) for beat in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([0.0, 0.33, 0.66, 0.83, 1.0])


def test_a_sound_lands_on_its_beat_and_its_side():
    piece = Piece(np.random.default_rng(0), bpm=120.0, duration_s=2.0)
    piece.hit(kick(np.random.default_rng(0)), 2, gain=1.0, pan=1.0, send=0.0)
    waveform = piece.mixed_down()
    first = np.flatnonzero(np.abs(waveform[:, 1]) > 1e-3)[0] / SAMPLE_RATE
    assert 1.0 <= first < 1.02
    assert np.abs(waveform[:, 0]).max() == 0.0


@pytest.mark.parametrize("style", STYLES)
def test_a_style_gives_stereo_music_that_neither_clips_nor_stops(style):
    waveform = synthesise(style, seed=5, duration_s=8.0)
    assert waveform.shape == (8 * SAMPLE_RATE, 2)
    assert waveform.dtype == np.float32
    assert 0.5 < np.abs(waveform).max() < 1.0
    seconds = np.sqrt(np.mean(np.square(waveform.reshape(8, SAMPLE_RATE, 2)), axis=(1, 2)))
    assert seconds[:7].min() > 0.02
    assert not np.array_equal(waveform[:, 0], waveform[:, 1])


def test_the_seed_decides_everything():
    once, again, other = (synthesise("jazz", seed=seed, duration_s=4.0) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert np.abs(once - other).max() > 0.1


def test_styles_differ_more_than_pieces_of_one_style():
    pieces = {
        (style, seed): spectral_profile(synthesise(style, seed=seed, duration_s=12.0))
        for style in STYLES
        for seed in (0, 1)
    }
    assert len(pieces) >= 12
    distances = {pair: np.linalg.norm(pieces[pair[0]] - pieces[pair[1]]) for pair in combinations(pieces, 2)}
    same = [distance for (one, other), distance in distances.items() if one[0] == other[0]]
    different = [distance for (one, other), distance in distances.items() if one[0] != other[0]]
    assert np.median(same) < 0.6 * np.median(different)


def test_an_unknown_style_and_no_length_are_refused():
    with pytest.raises(SettingsError, match="no style 'polka' can be synthesised; choose one of blues, "):
        synthesise("polka", seed=0)
    with pytest.raises(SettingsError, match="needs a length above 0 s, got 0"):
        synthesise("jazz", seed=0, duration_s=0)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_every_format_is_written_and_read_back(audio_format, tmp_path: Path):
    (path,) = write_tracks(tmp_path, tracks=1, duration_s=4.0, audio_format=audio_format)
    waveform, sample_rate = soundfile.read(path)
    assert sample_rate == SAMPLE_RATE
    assert waveform.shape[1] == 2
    assert len(waveform) == pytest.approx(4 * SAMPLE_RATE, rel=0.02)
    assert np.sqrt(np.mean(waveform**2)) > 0.05


def test_a_format_that_cannot_be_written_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="no format 'midi' can be written; choose one of wav, flac, ogg, mp3"):
        next(write_tracks(tmp_path, tracks=1, audio_format="midi"))


def test_the_command_goes_round_the_styles_and_repeats_itself_exactly(tmp_path: Path):
    tracks = len(STYLES) + 1
    for folder in ("one", "two"):
        result = CliRunner().invoke(
            cli,
            ["synth", "audio", str(tmp_path / folder), "--tracks", str(tracks), "--seconds", "1", "--format", "wav"],
        )
        assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted([*(f"{style}-0.wav" for style in STYLES), f"{next(iter(STYLES))}-1.wav"])
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
