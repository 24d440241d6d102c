import io
import os
import socket
import struct
import tempfile
import tracemalloc
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from models.audio.windows import WindowPlan, decode_whole, decode_windows
from models.errors import AudioError, NotAudio, SettingsError, Silent, TooLong, TooShort

RATE = 16000
MAX_S = 3 * 3600.0
SHORT_WINDOWS = WindowPlan(count=3, window_s=4)


def music(duration_s, rate=44100):
    """Two channels that differ: gliding tones under slow envelopes, (frames, 2)."""
    t = np.arange(round(duration_s * rate)) / rate
    left = 0.4 * np.sin(2 * np.pi * (220 * t + 15 * t**2)) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.9 * t))
    right = 0.3 * np.sin(2 * np.pi * 523 * t) + 0.1 * np.sin(2 * np.pi * 1760 * t) * np.cos(2 * np.pi * 0.4 * t)
    return np.stack([left, right], axis=1).astype(np.float32)


def sndfile(samples, rate=44100, **arguments):
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, samples.shape[1], **arguments) as sound:
        for block in np.array_split(samples, max(1, len(samples) // rate)):  # libsndfile's vorbis needs small writes
            sound.write(block)
    return out.getvalue()


def ffmpeg(samples, container, codec, rate=44100, *, video=False, metadata=None, options=None):
    with (
        tempfile.NamedTemporaryFile() as file,  # faststart opens what it wrote once more
        av.open(file.name, "w", format=container, options=options or {}) as writer,
    ):
        writer.metadata.update(metadata or {})
        if video:
            pictures = writer.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        layout = "stereo" if samples.shape[1] == 2 else "mono"
        stream = writer.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 192_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        converter = av.AudioResampler(
            format=stream.codec_context.format, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size
        )
        if video:
            for second in range(5 * len(samples) // rate):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), second % 255, np.uint8), format="rgb24")
                writer.mux(pictures.encode(picture))
            writer.mux(pictures.encode(None))
        for part in [*converter.resample(frame), *converter.resample(None)]:
            writer.mux(stream.encode(part))
        writer.mux(stream.encode(None))
        writer.close()
        return Path(file.name).read_bytes()


def wav_header(data_bytes, *, channels=2, rate=44100, bits=16):
    frame_bytes = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 1, channels, rate, min(rate * frame_bytes, 2**32 - 1), frame_bytes % 65536, bits)
    riff_bytes = min(36 + data_bytes, 2**32 - 1)
    return (
        b"RIFF" + struct.pack("<I", riff_bytes) + b"WAVEfmt \x10\0\0\0" + fmt + b"data" + struct.pack("<I", data_bytes)
    )


def wav_bytes(samples, claimed_bytes=None, **header):
    data = (samples * 32767).astype("<i2").tobytes()
    return wav_header(len(data) if claimed_bytes is None else claimed_bytes, **header) + data


FASTSTART = {"movflags": "faststart"}
FORMATS = {
    "wav-u8": (5e-2, lambda x: sndfile(x, format="WAV", subtype="PCM_U8")),
    "wav-16": (2e-4, lambda x: sndfile(x, format="WAV", subtype="PCM_16")),
    "wav-24": (1e-5, lambda x: sndfile(x, format="WAV", subtype="PCM_24")),
    "wav-32": (1e-5, lambda x: sndfile(x, format="WAV", subtype="PCM_32")),
    "wav-float": (1e-5, lambda x: sndfile(x, format="WAV", subtype="FLOAT")),
    "wav-double": (1e-5, lambda x: sndfile(x, format="WAV", subtype="DOUBLE")),
    "wav-ulaw": (2e-2, lambda x: sndfile(x, format="WAV", subtype="ULAW")),
    "wav-alaw": (2e-2, lambda x: sndfile(x, format="WAV", subtype="ALAW")),
    "wav-ima-adpcm": (2e-2, lambda x: sndfile(x, format="WAV", subtype="IMA_ADPCM")),
    "wav-ms-adpcm": (2e-2, lambda x: sndfile(x, format="WAV", subtype="MS_ADPCM")),
    "aiff": (2e-4, lambda x: sndfile(x, format="AIFF", subtype="PCM_16")),
    "flac-16": (1e-4, lambda x: sndfile(x, format="FLAC", subtype="PCM_16")),
    "flac-24": (1e-5, lambda x: sndfile(x, format="FLAC", subtype="PCM_24")),
    "vorbis": (5e-2, lambda x: sndfile(x, format="OGG", subtype="VORBIS")),
    "mp3": (1e-1, lambda x: sndfile(x, format="MP3")),
    "mp3-variable": (1e-1, lambda x: sndfile(x, format="MP3", bitrate_mode="VARIABLE")),
    "alac-m4a": (1e-4, lambda x: ffmpeg(x, "ipod", "alac", options=FASTSTART)),
    "aac-m4a": (5e-2, lambda x: ffmpeg(x, "ipod", "aac", options=FASTSTART)),
    "aac-mp4-with-video": (5e-2, lambda x: ffmpeg(x, "mp4", "aac", video=True, options=FASTSTART)),
    "aac-matroska": (2e-1, lambda x: ffmpeg(x, "matroska", "aac")),
    "aac-adts": (2e-1, lambda x: ffmpeg(x, "adts", "aac")),
    "wma": (1e-1, lambda x: ffmpeg(x, "asf", "wmav2")),
}
FORMATS_48K = {
    "opus": (1e-1, lambda x: sndfile(x, 48000, format="OGG", subtype="OPUS")),
    "opus-webm": (1e-1, lambda x: ffmpeg(x, "webm", "libopus", 48000)),
}
# These containers cannot say that the first frame is the encoder's run-up, or FFmpeg 8.0 does not listen (Matroska).
STARTS_ELSEWHERE = {"aac-adts", "aac-matroska", "wma"}
TIMED_IN_MILLISECONDS = {"aac-matroska", "opus-webm", "wma"}
DURATION_S = 21.0


@cache
def encoded(name):
    """The same 21 s of music in a format: (bytes, tolerance, rate)."""
    rate = 48000 if name in FORMATS_48K else 44100
    tolerance, encode = (FORMATS | FORMATS_48K)[name]
    return encode(music(DURATION_S, rate)), tolerance, rate


EVERY_FORMAT = pytest.mark.parametrize("name", [*FORMATS, *FORMATS_48K])


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


def windows_of(source, plan=SHORT_WINDOWS, max_duration_s=MAX_S):
    return decode_windows(source, plan=plan, sample_rate=RATE, max_duration_s=max_duration_s)


def whole_of(source, max_duration_s=MAX_S):
    return decode_whole(source, sample_rate=RATE, max_duration_s=max_duration_s)


class TestFormats:
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

    def test_blocks_of_an_mp3_follow_one_another(self):
        data = encoded("mp3")[0]
        at_once, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        expected = soxr.resample(at_once.mean(axis=1), rate, RATE)
        assert np.allclose(whole_of(data)[: len(expected)], expected, atol=1e-6)

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

    def test_a_film_without_sound_is_not_audio(self):
        out = io.BytesIO()
        with av.open(out, "w", format="mp4") as writer:
            pictures = writer.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
            writer.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
            writer.mux(pictures.encode(None))
        with pytest.raises(NotAudio, match="no audio"):
            windows_of(out.getvalue())

    def test_three_seconds_are_enough_and_less_is_not(self):
        assert windows_of(wav_bytes(music(3.0))).waveforms[0].shape == (3 * RATE,)
        with pytest.raises(TooShort, match=r"2\.99 s"):
            windows_of(wav_bytes(music(2.99)))
        with pytest.raises(TooShort, match=r"2\.99 s"):
            whole_of(wav_bytes(music(2.99)))

    def test_digital_silence_is_silent(self):
        with pytest.raises(Silent):
            windows_of(wav_bytes(np.zeros((20 * 44100, 2))))
        with pytest.raises(Silent):
            windows_of(sndfile(np.zeros((20 * 44100, 2)), format="MP3"))

    def test_opposite_channels_cancel_out(self):
        left = music(5)[:, :1]
        with pytest.raises(Silent):
            windows_of(sndfile(np.concatenate([left, -left], axis=1), format="WAV", subtype="FLOAT"))

    def test_a_sound_in_one_window_is_a_sound(self):
        x = np.zeros((20 * 44100, 2), np.float32)
        x[9 * 44100 : 10 * 44100] = music(1)
        assert len(windows_of(wav_bytes(x)).waveforms) == 3

    def test_the_faintest_sound_of_sixteen_bits_is_a_sound(self):
        x = np.where(np.arange(5 * RATE) // 20 % 2, 1 / 32768, 0)[:, None]
        assert windows_of(sndfile(x, RATE, format="WAV", subtype="PCM_16")).waveforms

    def test_samples_that_are_no_numbers_count_as_silence(self):
        x = music(5)
        x[44100:88200, 0] = np.nan
        x[100_000, 1] = -np.inf
        heard = windows_of(sndfile(x, format="WAV", subtype="FLOAT")).waveforms[0]
        assert np.isfinite(heard).all()
        assert np.abs(heard[RATE + 200 : 2 * RATE - 200]).max() == 0
        assert np.abs(heard[:RATE]).max() > 0.1
        with pytest.raises(Silent):
            windows_of(sndfile(np.full((5 * 44100, 2), np.nan), format="WAV", subtype="FLOAT"))

    def test_samples_far_over_full_scale_are_held(self):
        heard = windows_of(sndfile(1e30 * music(5), format="WAV", subtype="FLOAT")).waveforms[0]
        assert np.abs(heard).max() < 25  # 16 and the resampler's overshoot


class TestHeadersThatLie:
    @pytest.mark.parametrize("claimed_bytes", [0, 20, 2**31, 2**32 - 1])
    def test_the_length_in_a_wav_header_is_not_believed(self, claimed_bytes):
        data = wav_bytes(music(21), claimed_bytes=claimed_bytes)
        tracemalloc.start()
        if claimed_bytes == 20:
            with pytest.raises(TooShort):
                windows_of(data)
        else:
            assert windows_of(data).starts_ms == (1000, 8000, 15000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30e6

    @pytest.mark.parametrize("claimed_frames", [0, 60 * 44100, 2**36 - 1])
    def test_the_length_in_a_flac_header_is_not_believed(self, claimed_frames):
        data = bytearray(sndfile(music(21), format="FLAC"))
        data[21] = data[21] & 0xF0 | claimed_frames >> 32
        data[22:26] = (claimed_frames & 0xFFFFFFFF).to_bytes(4, "big")
        heard = windows_of(bytes(data))
        assert heard.starts_ms == (1000, 8000, 15000)
        assert heard.duration_s == pytest.approx(21, abs=0.4)

    @pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x02\x00" + bytes(256)])
    def test_the_length_of_an_mp3_that_does_not_state_it_is_counted(self, tag):
        x = music(21)
        x[44100:] *= 0.001  # the first frames are the longest, a guess from them ends early
        data = sndfile(x, format="MP3", bitrate_mode="VARIABLE", compression_level=0.1)
        first_frame = data.index(data[:2], 4)
        assert b"Xing" in data[:first_frame]
        heard = windows_of(tag + data[first_frame:])
        assert heard.duration_s == pytest.approx(21, abs=0.1)
        assert heard.starts_ms == (1000, 8000, 15000)

    def test_the_length_of_a_live_webm_is_counted(self):
        data = bytearray(ffmpeg(music(21, 48000), "webm", "libopus", 48000))
        duration = data.index(b"\x44\x89\x88")  # the element of the duration
        data[duration : duration + 3] = b"\xec\x81\x00"[:1] + b"\x89\x00"  # a void one of the same size
        heard = windows_of(bytes(data))
        assert heard.duration_s == pytest.approx(21, abs=0.1)
        assert heard.starts_ms == (1000, 8000, 15000)

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

    @pytest.mark.parametrize("channels", [1, 3, 6, 64])
    def test_mono_is_the_mean_of_all_channels(self, channels):
        x = np.zeros((5 * RATE, channels), np.float32)
        x[:, -1] = music(5, RATE)[:, 0]
        heard = windows_of(sndfile(x, RATE, format="WAV", subtype="FLOAT")).waveforms[0]
        assert np.allclose(heard, x[: len(heard), -1] / channels, atol=1e-6)

    @pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 10_000_000, 2**31, 2**32 - 1])
    def test_sample_rates_beyond_all_use_are_not_audio(self, rate):
        with pytest.raises(NotAudio):
            windows_of(wav_bytes(music(5), rate=rate))

    @pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 96000, 192_000, 384_000])
    def test_every_other_sample_rate_is_converted(self, rate):
        expected = soxr.resample(music(3.5, rate).mean(axis=1), rate, RATE)
        heard = windows_of(sndfile(music(3.5, rate), rate, format="WAV", subtype="FLOAT")).waveforms[0]
        assert len(heard) == pytest.approx(3.5 * RATE, abs=1)
        assert np.allclose(heard[: len(expected)], expected, atol=1e-5)

    def test_text_in_no_known_encoding_is_no_obstacle(self):
        data = ffmpeg(music(5), "ipod", "aac", metadata={"title": "PLACEHOLDER"})
        assert b"PLACEHOLDER" in data
        assert windows_of(data.replace(b"PLACEHOLDER", b"\xff\xfe\x80\xe4\xf6\xfc\xff\xff\xff\xff\xff"))

    def test_a_stream_that_changes_its_channels_ends_there(self):
        stereo, mono = music(6), music(6)[:, :1]
        for first, second in ((stereo, mono), (mono, stereo)):
            heard = whole_of(ffmpeg(first, "adts", "aac") + ffmpeg(second, "adts", "aac"))
            assert len(heard) == pytest.approx(6 * RATE, abs=0.1 * RATE)

    @settings(max_examples=40, deadline=None, derandomize=True)
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


class TestPlaylists:
    """FFmpeg opens what a playlist names; here it must not."""

    @pytest.fixture
    def canary(self, tmp_path):
        """Playlists that name a local file and a listener, and a function that tells whether the listener was asked."""
        target = tmp_path / "target.aac"
        target.write_bytes(ffmpeg(music(5), "adts", "aac"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            address = f"http://127.0.0.1:{port}/a.aac"
            head, tail = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n", "\n#EXT-X-ENDLIST\n"
            playlists = {
                "hls-file": f"{head}file://{target}{tail}",
                "hls-path": f"{head}{target}{tail}",
                "hls-http": f"{head}{address}{tail}",
                "concat": f"ffconcat version 1.0\nfile '{target}'\n",
                "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
            }

            def was_asked():
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    return False
                return True

            yield playlists, was_asked

    def test_ffmpeg_on_its_own_opens_what_a_playlist_names(self, canary):
        playlists, _ = canary
        file = io.BytesIO(playlists["hls-file"].encode())
        file.name = "a.m3u8"
        with av.open(file) as container:
            assert container.format.name == "hls"
            assert next(container.decode(audio=0)).samples

    @pytest.mark.parametrize("ending", ["mp3", "m3u8", "m4a"])
    @pytest.mark.parametrize("kind", ["hls-file", "hls-path", "hls-http", "concat", "sdp"])
    def test_nothing_that_a_playlist_names_is_opened(self, canary, tmp_path, kind, ending):
        playlists, was_asked = canary
        path = tmp_path / f"track.{ending}"
        path.write_text(playlists[kind])
        with pytest.raises(NotAudio):
            windows_of(path)
        with path.open("rb") as file, pytest.raises(NotAudio):
            windows_of(file)
        assert not was_asked()

    @pytest.mark.parametrize("guards", [("format_whitelist",), ("protocol_whitelist",)])
    @pytest.mark.parametrize("kind", ["hls-file", "hls-path", "hls-http", "concat"])
    def test_each_guard_is_enough(self, canary, monkeypatch, kind, guards):
        playlists, was_asked = canary
        from models.audio import windows as audio

        loose = {"allowed_extensions": "ALL", "extension_picky": "0", "safe": "0"}
        file = io.BytesIO(playlists[kind].encode())
        file.name = "a.m3u8"
        with pytest.raises(av.FFmpegError):
            av.open(file, options=loose | {guard: audio._PYAV_OPTIONS[guard] for guard in guards})
        assert not was_asked()
