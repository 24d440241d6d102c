import io
from pathlib import Path

import numpy as np
import pytest
import soxr

from models.audio.blocks import Mono, cut, joined, nameless
from models.errors import Silent
from tests.models.audio.music_files import RATE, music, sndfile, windows_of


def in_channels(channels: int, *sounding: np.ndarray) -> bytes:
    """A wav file of 16 kHz in which the first channels sound and the others are digital silence."""
    x = np.zeros((5 * RATE, channels), np.float32)
    x[:, : len(sounding)] = np.stack(sounding, axis=1)
    return sndfile(x, RATE, format="WAV", subtype="FLOAT")


LEFT, RIGHT = music(5, RATE).T


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 64])
def test_one_sounding_channel_is_heard_as_mono(channels):
    heard = windows_of(in_channels(channels, LEFT)).waveforms[0]
    assert np.allclose(heard, LEFT[: len(heard)], atol=1e-6)


@pytest.mark.parametrize("channels", [2, 6, 8])
def test_stereo_in_a_layout_of_more_channels_is_heard_as_stereo(channels):
    heard = windows_of(in_channels(channels, LEFT, RIGHT)).waveforms[0]
    assert np.allclose(heard, ((LEFT + RIGHT) / 2)[: len(heard)], atol=1e-6)


def test_all_channels_that_sound_are_averaged_quiet_ones_too():
    six = [LEFT, RIGHT, *(0.05 * LEFT * level for level in (1, 2, 3, 4))]
    heard = windows_of(in_channels(6, *six)).waveforms[0]
    assert np.allclose(heard, (sum(six) / 6)[: len(heard)], atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_channels_that_cancel_each_other_are_heard_by_the_louder_one(noise):
    turned = -0.9 * LEFT + noise * np.random.default_rng(1).standard_normal(len(LEFT)).astype(np.float32)
    heard = windows_of(in_channels(2, LEFT, turned)).waveforms[0]
    assert np.allclose(heard, LEFT[: len(heard)], atol=1e-6)


def test_partly_opposite_channels_are_averaged():
    right = -0.5 * LEFT + 0.5 * RIGHT
    heard = windows_of(in_channels(2, LEFT, right)).waveforms[0]
    assert np.allclose(heard, ((LEFT + right) / 2)[: len(heard)], atol=1e-6)


def test_a_channel_that_joins_later_counts_from_there_on() -> None:
    mono, left, right = Mono(), np.full(4, 0.2, np.float32), np.full(4, 0.4, np.float32)
    assert mono(np.stack([left, 0 * left])).tolist() == left.tolist()
    assert np.allclose(mono(np.stack([left, right])), 0.3)
    assert np.allclose(mono(np.stack([left, 0 * left])), 0.1)


def test_the_number_of_channels_may_change() -> None:
    mono, channel = Mono(), np.full(4, 0.2, np.float32)
    for channels in (2, 1, 6, 2):
        assert np.allclose(mono(np.stack([channel] * channels)), 0.2)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 96000, 192_000, 384_000])
def test_every_other_sample_rate_is_converted(rate):
    expected = soxr.resample(music(3.5, rate).mean(axis=1), rate, RATE)
    heard = windows_of(sndfile(music(3.5, rate), rate, format="WAV", subtype="FLOAT")).waveforms[0]
    assert len(heard) == pytest.approx(3.5 * RATE, abs=1)
    assert np.allclose(heard[: len(expected)], expected, atol=1e-5)


def test_samples_that_are_no_numbers_count_as_silence():
    x = music(5).copy()
    x[44100:88200, 0] = np.nan
    x[100_000, 1] = -np.inf
    heard = windows_of(sndfile(x, format="WAV", subtype="FLOAT")).waveforms[0]
    assert np.isfinite(heard).all()
    assert np.abs(heard[RATE + 200 : 2 * RATE - 200]).max() == 0
    assert np.abs(heard[:RATE]).max() > 0.1
    with pytest.raises(Silent):
        windows_of(sndfile(np.full((5 * 44100, 2), np.nan), format="WAV", subtype="FLOAT"))


def test_samples_far_over_full_scale_are_held():
    heard = windows_of(sndfile(1e30 * music(5), format="WAV", subtype="FLOAT")).waveforms[0]
    assert np.abs(heard).max() < 25  # 16 and the resampler's overshoot


def test_mono_is_the_mean_of_each_frame() -> None:
    assert Mono()(np.array([[1.0, 2.0, -1.0], [3.0, 0.0, -1.0]], np.float32)).tolist() == [2.0, 1.0, -1.0]


def blocks_of(*lengths: int):
    """The numbers from 0 on in blocks of these lengths."""
    return iter(np.split(np.arange(sum(lengths), dtype=np.float32), np.cumsum(lengths)[:-1]))


@pytest.mark.parametrize(
    ("position", "start", "frames", "expected"),
    [
        (0, 0, 6, [[0, 1, 2], [3, 4, 5]]),
        (0, 2, 2, [[2], [3]]),
        (0, 4, 100, [[4, 5]]),
        (10, 11, 3, [[1, 2], [3]]),  # the first block begins at frame 10
        (10, 0, 12, [[0, 1]]),  # the part begins before the first block
        (0, 6, 3, []),
    ],
)
def test_cut_takes_what_lies_in_the_part(position: int, start: int, frames: int, expected: list) -> None:
    assert [part.tolist() for part in cut(blocks_of(3, 3), position, start, frames)] == expected


def test_cut_reads_no_block_after_the_part() -> None:
    blocks = blocks_of(3, 3, 3)
    assert len(list(cut(blocks, 0, 0, 3))) == 1
    assert next(blocks).tolist() == [3, 4, 5]


def test_joined_blocks_have_the_length_asked_for_and_the_last_has_the_rest() -> None:
    assert [block.tolist() for block in joined(blocks_of(2, 1, 4, 1), samples=3)] == [[0, 1, 2], [3, 4, 5, 6], [7]]
    assert list(joined(iter(()), samples=3)) == []


@pytest.mark.parametrize("offset", [-1, 2**63 - 1, 2**70])
def test_seeking_to_where_no_file_has_a_place_is_no_exception(tmp_path: Path, offset: int) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with (tmp_path / "a").open("rb", buffering=0) as on_disk:
        for file in (io.BytesIO(b"abc"), on_disk):
            nameless_file = nameless(file)
            assert nameless_file.seek(offset) in (-1, offset)
            assert nameless_file.seek(1) == 1
            assert nameless_file.read(1) == b"b"
