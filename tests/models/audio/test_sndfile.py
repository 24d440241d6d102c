import io
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from models.audio.sndfile import SndfileReader, Unfit
from models.errors import TooShort
from tests.models.audio.music_files import MAX_S, RATE, encoded, ffmpeg, music, sndfile, wav_bytes, whole_of, windows_of


def test_blocks_of_an_mp3_follow_one_another():
    data = encoded("mp3")[0]
    at_once, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    expected = soxr.resample(at_once.mean(axis=1), rate, RATE)
    assert np.allclose(whole_of(data)[: len(expected)], expected, atol=1e-6)


@pytest.mark.parametrize("claimed_bytes", [0, 20, 2**31, 2**32 - 1])
def test_the_length_in_a_wav_header_is_not_believed(claimed_bytes):
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
def test_the_length_in_a_flac_header_is_not_believed(claimed_frames):
    data = bytearray(sndfile(music(21), format="FLAC"))
    data[21] = data[21] & 0xF0 | claimed_frames >> 32
    data[22:26] = (claimed_frames & 0xFFFFFFFF).to_bytes(4, "big")
    heard = windows_of(bytes(data))
    assert heard.starts_ms == (1000, 8000, 15000)
    assert heard.duration_s == pytest.approx(21, abs=0.4)


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x02\x00" + bytes(256)])
def test_the_length_of_an_mp3_that_does_not_state_it_is_counted(tag):
    x = music(21).copy()
    x[44100:] *= 0.003  # the first frames are the longest, a guess from them ends early
    data = sndfile(x, format="MP3", bitrate_mode="VARIABLE", compression_level=0.1)
    first_frame = data.index(data[:2], 4)
    assert b"Xing" in data[:first_frame]
    heard = windows_of(tag + data[first_frame:])
    assert heard.duration_s == pytest.approx(21, abs=0.1)
    assert heard.starts_ms == (1000, 8000, 15000)


@pytest.mark.parametrize(
    "data",
    [b"no audio", wav_bytes(music(1))[:44], ffmpeg(music(4), "ipod", "aac"), encoded("mp3")[0][1000:]],
    ids=["text", "a header alone", "aac", "an mp3 that does not state its length"],
)
def test_what_another_decoder_should_read_is_unfit(data: bytes) -> None:
    with pytest.raises(Unfit):
        SndfileReader(io.BytesIO(data), max_duration_s=MAX_S)
