"""Damaged, joined and changing files, judged by the same music as plain wav, and by what FFmpeg makes of the file."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import scipy.signal

from models.audio import decoders
from models.audio.decoders import AudioFile
from models.audio.windows import WindowPlan
from models.errors import Damaged, NotAudio
from tests.models.audio.music_files import RATE, ffmpeg, music, sndfile, wav_bytes, whole_of, windows_of

PIECE_S = 12
ONE_WINDOW = WindowPlan(count=1, window_s=20)


def turned(x):
    """Other music of the same length: backwards."""
    return x[::-1].copy()


def mp3(x, rate=44100, **arguments):
    return sndfile(x, rate, format="MP3", **arguments)


def flac(x, rate=44100):
    return sndfile(x, rate, format="FLAC", subtype="PCM_16")


def vorbis(x, rate=44100):
    return sndfile(x, rate, format="OGG", subtype="VORBIS")


def opus(x, rate=48000):
    return sndfile(x, rate, format="OGG", subtype="OPUS")


def flac_in_ogg(x, rate=44100):
    return ffmpeg(x, "ogg", "flac", rate)


def webm(x, rate=48000):
    return ffmpeg(x, "webm", "libopus", rate)


def with_a_bit_turned(data):
    changed = bytearray(data)
    changed[len(data) * 3 // 10] ^= 8
    return bytes(changed)


def with_junk(data, size=2000):
    place = len(data) * 3 // 10
    return data[:place] + np.random.default_rng(1).bytes(size) + data[place:]


def with_junk_instead(data, size=2000):
    place = len(data) * 3 // 10
    return data[:place] + np.random.default_rng(1).bytes(size) + data[place + size :]


def stating(data, frames):
    """The FLAC file with another length in its header."""
    head = bytes([data[21] & 0xF0 | frames >> 32]) + (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return data[:21] + head + data[26:]


def assert_found_in(original, part, *, near_s, within_s=1.5, likeness=0.95):
    """The part is a piece of the original (both of RATE) that begins not far from near_s."""
    start = max(0, round((near_s - within_s) * RATE))
    where = original[start : start + len(part) + round(2 * within_s * RATE)]
    products = scipy.signal.correlate(where, part, mode="valid", method="fft")
    sums = np.cumsum(np.concatenate([[0.0], where.astype(np.float64) ** 2]))
    energies = sums[len(part) :] - sums[: -len(part)]
    assert (products / np.sqrt(energies * np.sum(part.astype(np.float64) ** 2))).max() > likeness


DAMAGE = {
    "mp3": lambda: with_junk(mp3(music(21))),
    "mp3 with junk instead": lambda: with_junk_instead(mp3(music(21))),
    "mp3 with much junk": lambda: with_junk(mp3(music(21)), 64_000),
    "flac": lambda: with_a_bit_turned(flac(music(21))),
    "flac with junk": lambda: with_junk(flac(music(21))),
    "vorbis": lambda: with_a_bit_turned(vorbis(music(21))),
    "opus": lambda: with_a_bit_turned(opus(music(21, 48000))),
    "flac in ogg": lambda: with_a_bit_turned(flac_in_ogg(music(21))),
    "aac": lambda: with_junk(ffmpeg(music(21), "adts", "aac")),
    "m4a": lambda: with_junk_instead(ffmpeg(music(21), "ipod", "aac", options={"movflags": "faststart"})),
    "wma": lambda: with_junk_instead(ffmpeg(music(21), "asf", "wmav2")),
}
SMALL = {"mp3", "mp3 with junk instead"}  # libsndfile goes on after it, and does not say what it lost


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGE)
    def test_music_after_damage_is_heard(self, name):
        original = whole_of(wav_bytes(music(21)))
        heard = windows_of(DAMAGE[name]())
        assert heard.duration_s == pytest.approx(21, abs=1)
        assert len(heard.waveforms) == 3
        for start_ms, waveform in zip(heard.starts_ms, heard.waveforms, strict=True):
            assert waveform.shape == (4 * RATE,)
            if start_ms != 1000 * int(0.3 * 21):
                tail = waveform[RATE * 2 :]
                assert_found_in(original, tail, near_s=start_ms / 1000 + 2)

    @pytest.mark.parametrize("name", DAMAGE)
    def test_what_was_lost_is_told(self, name):
        heard = windows_of(DAMAGE[name](), plan=ONE_WINDOW)
        assert len(heard.waveforms[0]) > 19 * RATE
        assert (0 if name in SMALL else 0.02) <= heard.lost_s < 1.5

    def test_an_intact_mp3_needs_no_second_decoder(self, monkeypatch):
        data = mp3(music(5))
        tagged = b"ID3\x04\0\0\0\0\x02\x00" + bytes(256) + data + b"TAG" + bytes(125)
        monkeypatch.setattr(decoders, "PyavReader", None)
        for intact in (data, mp3(music(5), bitrate_mode="VARIABLE"), tagged):
            assert len(whole_of(intact)) == pytest.approx(5 * RATE, abs=0.1 * RATE)
        with pytest.raises(TypeError):
            whole_of(data + data)

    def test_an_intact_file_has_lost_nothing(self):
        for data in (mp3(music(21)), flac(music(21)), vorbis(music(21)), ffmpeg(music(21), "ipod", "aac")):
            assert windows_of(data).lost_s == 0

    def test_damage_is_no_noise(self):
        x = 0.05 * music(21)
        assert np.abs(windows_of(with_a_bit_turned(flac(x)), plan=ONE_WINDOW).waveforms[0]).max() < 0.06

    def test_a_file_that_is_mostly_damaged_says_so(self):
        data = bytearray(flac(music(21)))
        for place in range(len(data) // 4, len(data), 4000):
            data[place] ^= 16
        with pytest.raises(Damaged, match="damaged"):
            windows_of(bytes(data), plan=ONE_WINDOW)


JOINED = {
    "mp3": lambda x, y: mp3(x) + mp3(y),
    "mp3 of variable bit rate": lambda x, y: mp3(x, bitrate_mode="VARIABLE") + mp3(y, bitrate_mode="VARIABLE"),
    "mp3, stereo and mono": lambda x, y: mp3(x) + mp3(y[:, :1]),
    "mp3, mono and stereo": lambda x, y: mp3(x[:, :1]) + mp3(y),
    "mp3 of other rates": lambda x, y: mp3(x) + mp3(y[::2], 22050),
    "vorbis": lambda x, y: vorbis(x) + vorbis(y),
    "vorbis, stereo and mono": lambda x, y: vorbis(x) + vorbis(y[:, :1]),
    "vorbis of other rates": lambda x, y: vorbis(x) + vorbis(y[::2], 22050),
    "flac": lambda x, y: flac(x) + flac(y),
    "flac, stereo and mono": lambda x, y: flac(x) + flac(y[:, :1]),
    "flac that states too little": lambda x, y: stating(flac(np.concatenate([x, y])), len(x)),
    "flac that states a little too little": lambda x, y: stating(flac(np.concatenate([x, y])), len(x) * 19 // 10),
    "flac in ogg": lambda x, y: flac_in_ogg(x) + flac_in_ogg(y),
    "aac, stereo and mono": lambda x, y: ffmpeg(x, "adts", "aac") + ffmpeg(y[:, :1], "adts", "aac"),
    "aac, mono and stereo": lambda x, y: ffmpeg(x[:, :1], "adts", "aac") + ffmpeg(y, "adts", "aac"),
    "mp2": lambda x, y: ffmpeg(x, "mp2", "mp2") + ffmpeg(y, "mp2", "mp2"),
}
JOINED_48K = {
    "opus": lambda x, y: opus(x) + opus(y),
    "webm": lambda x, y: webm(x) + webm(y),
}


class TestJoined:
    @pytest.mark.parametrize("name", [*JOINED, *JOINED_48K])
    def test_all_parts_are_heard(self, name):
        rate = 48000 if name in JOINED_48K else 44100
        x = music(PIECE_S, rate)[:, [0, 0]]  # where channels fall away, the mean stays
        heard = windows_of((JOINED | JOINED_48K)[name](x, turned(x)))
        original = whole_of(wav_bytes(np.concatenate([x, turned(x)]), rate=rate))
        assert heard.duration_s == pytest.approx(2 * PIECE_S, abs=0.5)
        assert heard.starts_ms in ((2000, 10000, 18000), (1000, 9000, 17000))
        assert heard.lost_s == 0
        for start_ms, waveform in zip(heard.starts_ms, heard.waveforms, strict=True):
            assert waveform.shape == (4 * RATE,)
            for second in range(4):
                begins_s = start_ms / 1000 + second
                if abs(begins_s + 0.5 - PIECE_S) > 0.7:  # encoders add up to 0.1 s at the seam
                    piece = waveform[second * RATE : (second + 1) * RATE]
                    assert_found_in(original, piece, near_s=begins_s, within_s=0.3, likeness=0.97)

    def test_flac_of_other_rates_goes_on(self):
        x = music(PIECE_S)[:, [0, 0]]
        heard = whole_of(flac(x) + flac(turned(x)[::2], 22050))
        assert len(heard) == pytest.approx(2 * PIECE_S * RATE, abs=0.1 * RATE)
        original = whole_of(wav_bytes(turned(x)))
        assert_found_in(original, heard[-8 * RATE :], near_s=PIECE_S - 8)

    def test_length_is_counted_to_little_more_than_the_longest_track(self):
        file = AudioFile(io.BytesIO(mp3(music(30)) * 4), max_duration_s=40)
        assert 40 * 44100 < file.frames < 42 * 44100

    @pytest.mark.parametrize("name", ["mp3", "flac", "vorbis"])
    def test_what_one_decoder_began_the_other_ends_without_a_seam(self, name):
        x = music(21)
        broken = DAMAGE["flac"]() if name == "flac" else {"mp3": mp3, "vorbis": vorbis}[name](x)
        heard, original = whole_of(broken), whole_of(wav_bytes(x))
        assert_found_in(original, heard[: 5 * RATE], near_s=0)
        assert_found_in(original, heard[-5 * RATE :], near_s=16)


def layer_1(seconds):
    """MPEG-1 layer I of one channel, 44.1 kHz and 192 kbit/s: a steady tone in one band of the 32."""
    bits = "1111111111111111" + "0110" + "00" + "0" + "0" + "11" + "000000"  # 208 bytes in slots of 4
    bits += "".join("0111" if band == 3 else "0000" for band in range(32))  # 8 bits a sample, in one band
    bits += format(6, "06b")  # scale factor 1/2
    bits += "".join(format(128 + (100 if sample % 4 < 2 else -100), "08b") for sample in range(12))
    frame = int(bits.ljust(208 * 8, "0"), 2).to_bytes(208, "big")
    return frame * round(seconds * 44100 / 384)


def streams(*encodings, samples):
    """A Matroska file with one stream of audio per encoding; None makes packets that no decoder reads."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as writer:
        tracks = [writer.add_stream(codec or "aac", rate=44100, layout="stereo") for codec in encodings]
        for codec, track in zip(encodings, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = 44100, Fraction(1, 44100), 0
            converter = av.AudioResampler(track.format, "stereo", 44100, frame_size=track.frame_size)
            for part in [*converter.resample(frame), *converter.resample(None), None]:
                for packet in track.encode(part):
                    if codec is None:
                        junk = av.Packet(b"\x07" * 100)
                        junk.pts, junk.dts, junk.time_base, junk.stream = (
                            packet.pts,
                            packet.dts,
                            packet.time_base,
                            track,
                        )
                        packet = junk  # noqa: PLW2901
                    writer.mux(packet)
    return file.getvalue()


class TestWhatElseIsAudio:
    @pytest.mark.parametrize("container", ["mp2", "wav", "matroska"])
    def test_layer_2_is_heard(self, container):
        heard = whole_of(ffmpeg(music(6), container, "mp2"))
        assert len(heard) == pytest.approx(6 * RATE, abs=0.1 * RATE)
        assert_found_in(whole_of(wav_bytes(music(6))), heard[RATE : 4 * RATE], near_s=1)

    def test_layer_1_is_heard(self):
        heard = whole_of(layer_1(5))
        assert len(heard) == pytest.approx(5 * RATE, abs=0.1 * RATE)
        spectrum = np.abs(np.fft.rfft(heard[RATE : 2 * RATE]))
        band_hz = 44100 / 64
        assert 3 * band_hz < np.argmax(spectrum) < 4 * band_hz

    @pytest.mark.parametrize("first", ["tta", None])
    def test_the_stream_that_can_be_decoded_is_heard(self, first):
        heard = whole_of(streams(first, "flac", samples=music(6)))
        assert_found_in(whole_of(wav_bytes(music(6))), heard[RATE : 5 * RATE], near_s=1, likeness=0.99)

    @pytest.mark.parametrize("only", ["tta", None])
    def test_a_file_without_such_a_stream_is_not_audio(self, only):
        with pytest.raises(NotAudio):
            whole_of(streams(only, samples=music(6)))
