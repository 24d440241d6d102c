import os
import tracemalloc
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from models.audio.sndfile import SndfileReader
from models.audio.windows import SUFFIXES, WindowPlan, decode_windows
from models.errors import AudioError, NotAudio, SettingsError, Silent, TooLong, TooShort
from tests.models.audio.music_files import (
    DURATION_S,
    FORMATS,
    FORMATS_48K,
    MAX_S,
    RATE,
    SHORT_WINDOWS,
    encoded,
    ffmpeg,
    music,
    sndfile,
    wav_bytes,
    wav_header,
    whole_of,
    windows_of,
)

EVERY_FORMAT = pytest.mark.parametrize("name", [*FORMATS, *FORMATS_48K])
# These containers cannot say that the first frame is the encoder's run-up, or FFmpeg 8.0 does not listen (Matroska).
STARTS_ELSEWHERE = {"aac-adts", "aac-matroska", "wma"}
TIMED_IN_MILLISECONDS = {"aac-matroska", "opus-webm", "wma"}


def relative_error(heard, expected, *, max_shift_s=0.0):
    """RMS of the difference over the RMS of what is expected, at the best shift."""
    size, most = min(len(heard), len(expected)), round(max_shift_s * RATE)
    shift = 0
    if most:
        lags = scipy.signal.correlation_lags(size, size)
        likeness = scipy.signal.correlate(heard[:size], expected[:size], method="fft")
        shift = lags[np.argmax(np.where(np.abs(lags) <= most, likeness, -np.inf))]
    heard, expected = heard[most + shift : size - most + shift], expected[most : size - most]
    return np.sqrt(np.mean((heard - expected) ** 2) / np.mean(expected**2))


class TestEveryFormat:
    @EVERY_FORMAT
    def test_it_sounds_like_the_mean_of_its_channels(self, name):
        data, tolerance, rate = encoded(name)
        expected = soxr.resample(music(DURATION_S, rate).mean(axis=1), rate, RATE)
        heard = whole_of(data)
        assert heard.dtype == np.float32
        assert len(heard) == pytest.approx(DURATION_S * RATE, abs=0.15 * RATE)
        assert relative_error(heard, expected, max_shift_s=0.15 if name in STARTS_ELSEWHERE else 0.0) < tolerance

    @EVERY_FORMAT
    def test_windows_that_were_sought_equal_slices_of_the_whole(self, name):
        data, tolerance, _ = encoded(name)
        whole, windows = whole_of(data), windows_of(data)
        assert windows.starts_ms == (1000, 8000, 15000)
        assert windows.duration_s == pytest.approx(DURATION_S, abs=0.15)
        for start_ms, heard in zip(windows.starts_ms, windows.waveforms, strict=True):
            assert heard.shape == (4 * RATE,)
            start = start_ms * RATE // 1000
            edge = RATE // 100  # the resampler knows nothing of what is outside a window
            expected = whole[start + edge : start + 4 * RATE - edge]
            max_shift_s = 0.002 if name in TIMED_IN_MILLISECONDS else 0.0
            assert relative_error(heard[edge:-edge], expected, max_shift_s=max_shift_s) < max(
                tolerance, 50 * max_shift_s
            )

    @EVERY_FORMAT
    def test_a_truncated_file_with_three_seconds_is_audio(self, name):
        data = encoded(name)[0]
        heard = windows_of(data[: int(len(data) * 0.6)])
        assert 8.0 < heard.duration_s < 15.0
        starts_ms = tuple(1000 * start_s for start_s in SHORT_WINDOWS.starts_s(heard.duration_s))
        assert heard.starts_ms == starts_ms
        lengths = [len(waveform) for waveform in heard.waveforms]
        assert lengths == pytest.approx([4 * RATE] * len(starts_ms), abs=0.05 * RATE)
        at_once = windows_of(data[: int(len(data) * 0.6)], plan=WindowPlan())
        assert at_once.starts_ms == (0,)
        assert len(at_once.waveforms[0]) / RATE == pytest.approx(at_once.duration_s, abs=0.15)

    @EVERY_FORMAT
    def test_less_than_three_seconds_of_a_truncated_file_is_too_short(self, name):
        data = encoded(name)[0]
        header = data.find(b"mdat") + 4 if b"moov" in data[: len(data) // 2] else 0
        with pytest.raises((TooShort, NotAudio)):
            windows_of(data[: header + int((len(data) - header) * 0.1)])

    @EVERY_FORMAT
    def test_a_track_over_the_set_length_is_refused(self, name):
        data = encoded(name)[0]
        with pytest.raises(TooLong, match="longer than 12 s"):
            windows_of(data, max_duration_s=12)
        with pytest.raises(TooLong, match="longer than 12 s"):
            whole_of(data, max_duration_s=12)


class TestSources:
    def test_a_path_bytes_and_an_open_file_give_the_same(self, tmp_path):
        data = wav_bytes(music(5))
        path = tmp_path / "a.wav"
        path.write_bytes(data)
        expected = whole_of(data)
        with path.open("rb") as file:
            file.seek(1000)
            assert np.array_equal(whole_of(file), expected)
            assert not file.closed
        assert np.array_equal(whole_of(path), expected)
        assert np.array_equal(whole_of(str(path)), expected)

    @pytest.mark.parametrize("name", ["a.raw", "a.mp3", "a.m3u8", "a.txt", "a"])
    def test_the_name_of_a_file_means_nothing(self, tmp_path, name):
        (tmp_path / name).write_bytes(wav_bytes(music(5)))
        assert len(whole_of(tmp_path / name)) == 5 * RATE

    def test_a_path_that_is_not_there_is_an_os_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            windows_of(tmp_path / "none.wav")


WRITERS = {
    **{
        suffix: partial(sndfile, format=name, subtype="PCM_16")
        for name, suffixes in {
            "AIFF": (".aif", ".aifc", ".aiff"),
            "AU": (".au", ".snd"),
            "CAF": (".caf",),
            "FLAC": (".flac",),
            "RF64": (".rf64",),
            "W64": (".w64",),
            "WAV": (".bwf", ".wav", ".wave"),
        }.items()
        for suffix in suffixes
    },
    ".mp3": partial(sndfile, format="MP3"),
    ".oga": partial(sndfile, format="OGG", subtype="VORBIS"),
    ".ogg": partial(sndfile, format="OGG", subtype="VORBIS"),
    ".opus": partial(sndfile, rate=48_000, format="OGG", subtype="OPUS"),
    **{suffix: partial(ffmpeg, container="ipod", codec="aac") for suffix in (".m4a", ".m4b", ".m4r")},
    **{suffix: partial(ffmpeg, container="matroska", codec="aac") for suffix in (".mka", ".mkv")},
    **{suffix: partial(ffmpeg, container="webm", codec="libopus", rate=48_000) for suffix in (".weba", ".webm")},
    **{suffix: partial(ffmpeg, container="asf", codec="wmav2") for suffix in (".asf", ".wma")},
    ".3gp": partial(ffmpeg, container="3gp", codec="aac"),
    ".aac": partial(ffmpeg, container="adts", codec="aac"),
    ".mov": partial(ffmpeg, container="mov", codec="aac"),
    ".mp4": partial(ffmpeg, container="mp4", codec="aac"),
    ".wv": partial(ffmpeg, container="wv", codec="wavpack"),
}


class TestSuffixes:
    def test_each_has_a_file_here(self):
        assert WRITERS.keys() == SUFFIXES

    @pytest.mark.parametrize("suffix", sorted(SUFFIXES))
    def test_a_file_of_each_is_heard(self, suffix):
        write = WRITERS[suffix]
        heard = windows_of(write(music(5, write.keywords.get("rate", 44_100))))
        assert heard.duration_s == pytest.approx(5, abs=0.15)


class TestWindowPlan:
    @pytest.mark.parametrize(
        ("duration_s", "starts_s"),
        [
            (3, (0,)),
            (29.9, (0,)),
            (30, (0,)),
            (30.013, (0,)),
            (50, (10,)),
            (60, (0, 30)),
            (80, (5, 45)),
            (90, (0, 30, 60)),
            (180, (15, 75, 135)),
            (3600, (585, 1785, 2985)),
        ],
    )
    def test_windows_lie_in_the_middle_of_equal_parts(self, duration_s, starts_s):
        assert WindowPlan().starts_s(duration_s) == starts_s

    @given(
        duration_s=st.floats(0.0, 1e6),
        count=st.integers(1, 20),
        window_s=st.integers(3, 120),
    )
    def test_windows_are_inside_the_track_disjoint_and_as_many_as_fit(self, duration_s, count, window_s):
        starts_s = WindowPlan(count=count, window_s=window_s).starts_s(duration_s)
        assert starts_s[0] >= 0
        assert all(later - earlier >= window_s for earlier, later in pairwise(starts_s))
        assert len(starts_s) == min(count, max(1, int(duration_s / window_s)))
        if duration_s >= window_s:
            assert starts_s[-1] + window_s <= duration_s
        else:
            assert starts_s == (0,)

    @pytest.mark.parametrize("arguments", [{"count": 0}, {"window_s": 2}])
    def test_a_plan_that_hears_nothing_is_refused(self, arguments):
        with pytest.raises(SettingsError):
            WindowPlan(**arguments)

    def test_a_track_no_longer_than_a_window_is_heard_whole(self):
        heard = windows_of(wav_bytes(music(7.3)), plan=WindowPlan())
        assert heard.starts_ms == (0,)
        assert heard.duration_s == pytest.approx(7.3)
        assert heard.waveforms[0].shape == (round(7.3 * RATE),)

    def test_a_window_of_a_lossless_file_is_that_part_of_it(self):
        x = music(21)
        heard = windows_of(sndfile(x, format="WAV", subtype="FLOAT"))
        for start_ms, waveform in zip(heard.starts_ms, heard.waveforms, strict=True):
            start = start_ms * 44100 // 1000
            expected = soxr.resample(x[start : start + 4 * 44100].mean(axis=1), 44100, RATE, quality="HQ")
            assert np.allclose(waveform, expected, atol=1e-6)


def silence(duration_s):
    return np.zeros((round(duration_s * 44100), 2), np.float32)


class TestSilence:
    """What is heard of a track with long silences is what is heard of the same track without them."""

    @pytest.mark.parametrize(
        ("parts", "starts_ms"),
        [
            ([silence(1.2), music(4.5)], (1200,)),
            ([silence(10), music(4)], (10_000,)),
            ([music(21), silence(300)], (1000, 8000, 15_000)),
            ([music(8), silence(60), music(13)], (1000, 68_000, 75_000)),
            ([silence(70), music(10), silence(70), music(11), silence(5)], (71_000, 78_000, 155_000)),
            ([music(11), silence(1.2), music(10)], (1000, 8000, 16_200)),
        ],
    )
    def test_it_is_left_out(self, parts, starts_ms):
        data = sndfile(np.concatenate(parts), format="WAV", subtype="FLOAT")
        sound = np.concatenate([part for part in parts if part.any()])
        heard, expected = windows_of(data), windows_of(sndfile(sound, format="WAV", subtype="FLOAT"))
        assert heard.starts_ms == starts_ms
        assert heard.duration_s == pytest.approx(sum(map(len, parts)) / 44100)
        assert len(heard.waveforms) == len(expected.waveforms)
        for waveform, as_expected in zip(heard.waveforms, expected.waveforms, strict=True):
            assert np.allclose(waveform, as_expected, atol=1e-6)

    @EVERY_FORMAT
    def test_it_is_left_out_of_every_format(self, name):
        encode, rate = (FORMATS | FORMATS_48K)[name][1], 48_000 if name in FORMATS_48K else 44_100
        song = music(DURATION_S, rate)
        heard = windows_of(encode(np.concatenate([song, np.zeros((40 * rate, 2), np.float32)])))
        assert heard.starts_ms == pytest.approx((1000, 8000, 15_000), abs=150)
        for waveform, expected in zip(heard.waveforms, windows_of(encoded(name)[0]).waveforms, strict=True):
            assert len(waveform) == pytest.approx(4 * RATE, abs=0.05 * RATE)
            assert relative_error(waveform, expected, max_shift_s=0.15) < 0.3

    def test_a_track_of_hours_is_looked_through_in_pieces(self, monkeypatch):
        read = 0

        class Counted(SndfileReader):
            def blocks(self, start, frames):
                nonlocal read
                for block in super().blocks(start, frames):
                    read += len(block)
                    yield block

        monkeypatch.setattr("models.audio.decoders.SndfileReader", Counted)
        x = np.zeros((2 * 3600 * 1000, 1), np.float32)
        song = music(200, 1000)[:, :1]
        x[1000 * 1000 :][: len(song)] = song
        x[6000 * 1000 :][: len(song)] = song
        heard = windows_of(sndfile(x, 1000, format="WAV", subtype="PCM_16"))
        assert all(1000 <= start_ms / 1000 < 1200 or 6000 <= start_ms / 1000 < 6200 for start_ms in heard.starts_ms)
        assert [len(waveform) for waveform in heard.waveforms] == [4 * RATE] * 3
        assert all(np.sqrt(np.mean(waveform**2)) > 0.1 for waveform in heard.waveforms)
        assert read / 1000 < 1200 + 3 * (4 + 4 + 60)

    def test_hiss_below_the_gate_is_silence_too(self):
        hiss = 1e-4 * np.random.default_rng(5).standard_normal((60 * 44100, 2)).astype(np.float32)
        data = sndfile(np.concatenate([hiss, music(21)]), format="WAV", subtype="FLOAT")
        assert windows_of(data).starts_ms == (61_000, 68_000, 75_000)

    def test_a_rest_of_the_music_is_heard(self):
        x = music(8).copy()
        x[2 * 44100 : 3 * 44100] = 0
        heard = windows_of(wav_bytes(x), plan=WindowPlan())
        assert len(heard.waveforms[0]) == 8 * RATE

    @pytest.mark.parametrize("duration_s", [21, 90])
    def test_a_track_that_sounds_is_read_no_further_than_its_windows(self, monkeypatch, duration_s):
        read = []

        class Watched(SndfileReader):
            def blocks(self, start, frames):
                read.append(frames)
                return super().blocks(start, frames)

        monkeypatch.setattr("models.audio.decoders.SndfileReader", Watched)
        windows_of(wav_bytes(music(duration_s)))
        assert sum(read) == pytest.approx(3 * 4 * 44100, abs=10)

    def test_a_sound_in_one_window_is_a_sound(self):
        x = np.zeros((20 * 44100, 2), np.float32)
        x[9 * 44100 : 13 * 44100] = music(4)
        assert windows_of(wav_bytes(x)).starts_ms == (9000,)


class TestFurtherRates:
    def test_the_same_windows_are_decoded_at_each_of_them(self):
        data = sndfile(music(21), format="FLAC", subtype="PCM_24")
        heard = decode_windows(
            data, plan=SHORT_WINDOWS, sample_rate=RATE, max_duration_s=MAX_S, further_rates=(24_000, 44_100)
        )
        assert heard.at_rates.keys() == {24_000, 44_100}
        mono = music(21).mean(axis=1)
        for start_ms, at_24k, at_44k in zip(heard.starts_ms, *heard.at_rates.values(), strict=True):
            start = start_ms * 44_100 // 1000
            window = mono[start : start + 4 * 44_100]
            assert relative_error(at_44k, window) < 1e-4
            assert len(at_24k) == 4 * 24_000
            assert relative_error(at_24k, soxr.resample(window, 44_100, 24_000)) < 1e-3
        assert windows_of(data).at_rates == {}

    def test_where_there_is_sound_is_decided_once_so_that_no_rate_has_other_windows(self):
        """A whistle at 10 kHz is silence at 16 kHz: then the track is looked through, and a pause left out."""
        samples = music(21).copy()
        samples[round(5.5 * 44_100) : round(6.7 * 44_100)] = 0
        t = np.arange(3 * 44_100)[:, None] / 44_100
        samples[9 * 44_100 : 12 * 44_100] = 0.3 * np.sin(2 * np.pi * 10_000 * t)
        data = sndfile(samples, format="WAV", subtype="FLOAT")
        heard = decode_windows(
            data, plan=SHORT_WINDOWS, sample_rate=RATE, max_duration_s=MAX_S, further_rates=(24_000,)
        )
        alone = decode_windows(data, plan=SHORT_WINDOWS, sample_rate=24_000, max_duration_s=MAX_S)
        assert alone.starts_ms != heard.starts_ms
        (further,) = heard.at_rates.values()
        assert [len(window) for window in further] == [len(window) * 3 / 2 for window in heard.waveforms]
        for at_16k, at_24k in zip(heard.waveforms, further, strict=True):
            assert relative_error(soxr.resample(at_24k, 24_000, RATE), at_16k) < 1e-2


class TestWhatCannotBeHeard:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\0" * 100_000,
            b"Dear listener,\n" * 1000,
            b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40,
            b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(range(256)) * 40,
            b"PK\x03\x04" + bytes(range(256)) * 400,
            b"%PDF-1.7\n" + bytes(range(256)) * 40,
            b"\x1f\x8b\x08" + bytes(range(256)) * 40,
            b"ID3\x04\0\0\0\0\0\x0a" + b"x" * 5000,
            b"OggS" + b"\0" * 500,
            b"fLaC" + b"\0" * 500,
            b"RIFF\xff\xff\xff\xffWAVE",
            np.random.default_rng(7).bytes(50_000),
        ],
    )
    def test_what_no_decoder_reads_is_not_audio(self, data):
        with pytest.raises(NotAudio, match="upload an mp3, m4a"):
            windows_of(data)

    def test_three_seconds_are_enough_and_less_is_not(self):
        assert windows_of(wav_bytes(music(3.0))).waveforms[0].shape == (3 * RATE,)
        with pytest.raises(TooShort, match=r"2\.99 s"):
            windows_of(wav_bytes(music(2.99)))
        with pytest.raises(TooShort, match=r"2\.99 s"):
            whole_of(wav_bytes(music(2.99)))
        with pytest.raises(TooShort, match=r"^2\.99 s .* needs 3 s"):  # rounded, it would be 3.00
            windows_of(wav_bytes(music(2.9999)))

    def test_just_under_three_seconds_are_not_told_as_three(self):
        with pytest.raises(TooShort, match=r"2\.99 s of audio can be decoded, a track needs 3 s"):
            whole_of(wav_bytes(music(3.0)[:-4]))

    def test_digital_silence_is_silent(self):
        with pytest.raises(Silent, match=r"0\.0 s of the track are louder than -70 dB of full scale"):
            windows_of(wav_bytes(np.zeros((20 * 44100, 2))))
        with pytest.raises(Silent):
            windows_of(sndfile(np.zeros((20 * 44100, 2)), format="MP3"))

    @pytest.mark.parametrize(("dbfs", "heard"), [(-80, False), (-72, False), (-60, True)])
    def test_hiss_is_heard_above_the_gate_alone(self, dbfs, heard):
        hiss = 10 ** (dbfs / 20) * np.random.default_rng(5).standard_normal((20 * RATE, 2))
        data = sndfile(np.repeat(hiss[:, :1], 2, axis=1), RATE, format="WAV", subtype="PCM_24")
        if heard:
            assert len(windows_of(data).waveforms) == 3
        else:
            with pytest.raises(Silent):
                windows_of(data)

    @pytest.mark.parametrize("name", ["wav-16", "flac-16", "mp3", "vorbis", "aac-m4a"])
    def test_under_three_seconds_of_sound_in_a_long_silence_are_silent(self, name):
        x = np.zeros((60 * 44100, 2), np.float32)
        x[40 * 44100 : 40 * 44100 + 2 * 44100] = music(2)
        with pytest.raises(Silent, match=r"[12]\.\d s of the track"):
            windows_of(FORMATS[name][1](x))

    def test_a_day_of_audio_is_refused_without_reading_it(self, tmp_path):
        day_bytes = 24 * 3600 * RATE * 2
        path = tmp_path / "day.wav"
        path.write_bytes(wav_header(day_bytes, channels=1, rate=RATE))
        os.truncate(path, 44 + day_bytes)  # a hole: it takes no space
        tracemalloc.start()
        with pytest.raises(TooLong, match="longer than 10800 s"):
            windows_of(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e6

    @pytest.mark.parametrize("channels", [0, 65, 255, 1024, 65535])
    def test_channels_beyond_all_use_are_not_audio(self, channels):
        with pytest.raises(NotAudio):
            windows_of(wav_header(4_000_000, channels=channels) + bytes(range(250)) * 16_000)

    @pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 10_000_000, 2**31, 2**32 - 1])
    def test_sample_rates_beyond_all_use_are_not_audio(self, rate):
        with pytest.raises(NotAudio):
            windows_of(wav_bytes(music(5), rate=rate))

    @settings(max_examples=40, derandomize=True)
    @given(
        name=st.sampled_from(["wav-16", "flac-16", "vorbis", "mp3", "aac-m4a", "opus-webm", "aac-adts"]),
        damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=40),
        kept=st.floats(0.01, 1.0),
    )
    def test_a_damaged_file_is_heard_or_refused(self, name, damage, kept):
        data = bytearray(encoded(name)[0])
        for place, value in damage:
            data[int(place**3 * (len(data) - 1))] = value  # most of it in the header
        try:
            heard = windows_of(bytes(data[: int(len(data) * kept)]))
        except AudioError:
            return
        assert all(np.isfinite(waveform).all() and len(waveform) >= 3 * RATE for waveform in heard.waveforms)
