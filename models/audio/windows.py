"""A music file -> mono waveforms at a model's sample rate: which windows of a track are heard, and what cannot be.

libsndfile decodes what it can (wav, aiff, flac, ogg vorbis and opus, mp3 ...), FFmpeg through PyAV the rest
(aac, m4a, webm, wma ...). Mono is the mean of the channels and soxr's HQ converts the rate, so that a file
sounds as librosa.load(path, sr=...) would have it: FFmpeg's own down-mix is 3 dB louder than the mean.

What a file says about itself is a first guess and no more: its length is checked against what can be decoded.
Windows are taken where there is sound: where one of them meets a long silence, the whole track is looked through, and
heard as if its long silences were not there.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from models.audio.blocks import ADVICE, Float32, Reader, resampled
from models.audio.ffmpeg import PyavReader
from models.audio.silence import Levels, WithoutSilence
from models.audio.sndfile import SndfileReader, Unfit
from models.errors import NotAudio, SettingsError, Silent, TooLong, TooShort

Source = str | PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, or an open binary file that can seek."""

MIN_DURATION_S = 3.0
"""Less cannot be tagged: musicnn hears 3 s at a time."""

SUFFIXES = frozenset(
    [
        ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".asf", ".au", ".bwf", ".caf", ".flac", ".m4a",
        ".m4b", ".m4r", ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus",
        ".rf64", ".snd", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv",
    ]
)  # fmt: skip
"""How the names of music files in a folder end. A file that is named on its own may have any name."""

SAMPLE_RATES_HZ = (1_000, 768_000)
"""Lowest and highest sample rate of a file that is decoded."""

MAX_CHANNELS = 64
_SLACK_S = 0.5  # a window that ends up shorter by more shows that the track is not as long as its header says


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """Which parts of a track a release hears.

    As many windows as fit without overlap, at most `count`: the track is cut into that many equal parts, and
    a window lies in the middle of each, its start moved down to a whole second (a whole sample at every
    rate). A track that is no longer than one window is heard whole.

    Attributes:
        count: most windows of a track.
        window_s: length of a window, s.

    Raises:
        SettingsError: the numbers do not describe a plan.
    """

    count: int = 3
    window_s: int = 30

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"count of a WindowPlan is {self.count}; give at least 1")
        if self.window_s < MIN_DURATION_S:
            raise SettingsError(f"window_s of a WindowPlan is {self.window_s}; give at least {MIN_DURATION_S:g}")

    def starts_s(self, duration_s: float) -> tuple[int, ...]:
        """Starts of the windows of a track of duration_s, in seconds, in order.

        WindowPlan().starts_s(180.0)  # (15, 75, 135)
        """
        windows = max(1, min(self.count, int(duration_s / self.window_s)))
        part_s = duration_s / windows
        return tuple(max(0, int((window + 0.5) * part_s - self.window_s / 2)) for window in range(windows))


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The decoded windows of a track.

    Attributes:
        waveforms: (samples,) float32 each, mono, finite, full scale +-1 and clipped at about +-16; of the plan's
            length where the track has as much, and at least 3 s. Long silences may be left out of them.
        starts_ms: where each starts in the track.
        duration_s: length of the whole track.
        sample_rate: of the waveforms, Hz.
    """

    waveforms: tuple[Float32, ...]
    starts_ms: tuple[int, ...]
    duration_s: float
    sample_rate: int


def decode_windows(source: Source, *, plan: WindowPlan, sample_rate: int, max_duration_s: float) -> Windows:
    """Decode the windows of a track, and little more than them where the format can seek.

        audio = decode_windows("song.mp3", plan=WindowPlan(), sample_rate=16_000, max_duration_s=3 * 3600)
        audio.starts_ms           # (15000, 75000, 135000), of a song of 3 minutes
        audio.waveforms[0].shape  # (480000,): 30 s from 0:15 on

    Args:
        source: a path, the bytes of a file, or an open binary file that can seek (it stays open, at any position).
        plan: which windows.
        sample_rate: of the waveforms, Hz.
        max_duration_s: longest track.

    Returns:
        At least one window. NaN samples count as silence.

    Raises:
        NotAudio: no decoder reads it, or it has no audio, or a sample rate or channels beyond all use.
        TooShort: under 3 s can be decoded. A truncated file with more is audio.
        TooLong: over max_duration_s can be decoded.
        Silent: under 3 s of it are louder than -70 dB of full scale.
        MemoryError: the file asks for more memory than there is, or than FFmpeg ever takes.
        OSError: the path cannot be opened.
    """
    with _reader(source) as reader:
        waveforms, frames = _windows_and_length(
            reader, plan=plan, sample_rate=sample_rate, max_duration_s=max_duration_s
        )
        waveforms = _long_enough(waveforms, sample_rate)
        if _disappoint(waveforms.values(), sample_rate):
            waveforms = _long_enough(_read_sound(reader, plan, frames, sample_rate), sample_rate)
        duration_s = frames / reader.sample_rate
    return Windows(
        waveforms=tuple(waveforms.values()), starts_ms=tuple(waveforms), duration_s=duration_s, sample_rate=sample_rate
    )


def decode_whole(source: Source, *, sample_rate: int, max_duration_s: float) -> Float32:
    """Decode a whole file, as librosa.load(source, sr=sample_rate) does.

        waveform = decode_whole("song.flac", sample_rate=16_000, max_duration_s=600)

    Args:
        source: as of decode_windows.
        sample_rate: of the waveform, Hz.
        max_duration_s: longest track.

    Returns:
        (samples,) float32, mono, full scale +-1.

    Raises:
        NotAudio, TooShort, TooLong, MemoryError, OSError: as decode_windows. Silence is decoded like any sound.
    """
    with _reader(source) as reader:
        limit = int(max_duration_s * reader.sample_rate)
        waveform = resampled(reader, start=0, frames=limit + 1, sample_rate=sample_rate)
    if len(waveform) > max_duration_s * sample_rate:
        raise _too_long(max_duration_s)
    if len(waveform) < MIN_DURATION_S * sample_rate:
        raise _too_short(len(waveform) / sample_rate)
    return waveform


def _too_long(max_duration_s: float) -> TooLong:
    return TooLong(f"the track is longer than {max_duration_s:g} s, the longest taken; cut it or raise the limit")


def _too_short(duration_s: float) -> TooShort | NotAudio:
    if duration_s == 0:
        return NotAudio(f"not a sample of audio can be decoded; {ADVICE}")
    shown_s = math.floor(duration_s * 100) / 100  # rounded, 2.9999 s would be the 3 s that are needed
    return TooShort(f"{shown_s:.2f} s of audio can be decoded, a track needs {MIN_DURATION_S:g} s; {ADVICE}")


@contextmanager
def _reader(source: Source) -> Generator[Reader]:
    """The file, opened by the decoder that fits it."""
    if isinstance(source, str | PathLike):
        with Path(source).open("rb") as file, _reader(file) as reader:
            yield reader
        return
    file = BytesIO(source) if isinstance(source, bytes) else source
    try:
        reader = SndfileReader(file)
    except Unfit:
        reader = PyavReader(file)
    if not SAMPLE_RATES_HZ[0] <= reader.sample_rate <= SAMPLE_RATES_HZ[1]:
        raise NotAudio(f"the file has {reader.sample_rate} samples a second; convert it to 8000 to 192000")
    if not 1 <= reader.channels <= MAX_CHANNELS:
        raise NotAudio(f"the file has {reader.channels} channels; convert it to at most {MAX_CHANNELS}")
    yield reader


def _windows_and_length(
    reader: Reader, *, plan: WindowPlan, sample_rate: int, max_duration_s: float
) -> tuple[dict[int, Float32], int]:
    """The plan's windows by their starts in milliseconds, and the track's length in frames.

    The length that the file claims is taken where the windows that follow from it are as long as they should be.
    Otherwise the frames are counted, which may read the whole file.
    """
    limit = int(max_duration_s * reader.sample_rate)
    claimed = reader.claimed_frames
    if claimed is not None and claimed <= limit:
        waveforms = _read_windows(reader, plan, claimed, sample_rate)
        expected_s = min(plan.window_s, claimed / reader.sample_rate)
        if min(map(len, waveforms.values())) > (expected_s - _SLACK_S) * sample_rate:
            return waveforms, claimed
    elif claimed is not None and any(map(len, reader.blocks(limit, 1))):  # longer than the limit, as it says
        raise _too_long(max_duration_s)
    frames = reader.count(limit + 1)
    if frames > limit:
        raise _too_long(max_duration_s)
    return _read_windows(reader, plan, frames, sample_rate), frames


def _read_windows(reader: Reader, plan: WindowPlan, frames: int, sample_rate: int) -> dict[int, Float32]:
    """The plan's windows of a track of so many frames, by their starts in milliseconds."""
    rate = reader.sample_rate
    return {
        1000 * start_s: resampled(reader, start=start_s * rate, frames=plan.window_s * rate, sample_rate=sample_rate)
        for start_s in plan.starts_s(frames / rate)
    }


def _long_enough(waveforms: dict[int, Float32], sample_rate: int) -> dict[int, Float32]:
    """The windows of at least 3 s. Raises TooShort where there is none."""
    longest_s = max(map(len, waveforms.values())) / sample_rate
    if longest_s < MIN_DURATION_S:
        raise _too_short(longest_s)
    return {
        start_ms: waveform for start_ms, waveform in waveforms.items() if len(waveform) >= MIN_DURATION_S * sample_rate
    }


def _disappoint(waveforms: Iterable[Float32], sample_rate: int) -> bool:
    """Whether one of the windows has a long silence, or all of them have less sound than a track needs."""
    levels = [Levels([waveform], sample_rate=sample_rate) for waveform in waveforms]
    return any(level.has_long_silence for level in levels) or sum(level.sounding_s for level in levels) < MIN_DURATION_S


def _read_sound(reader: Reader, plan: WindowPlan, frames: int, sample_rate: int) -> dict[int, Float32]:
    """The plan's windows of the track without its long silences, by their starts in the track, in milliseconds."""
    rate = reader.sample_rate
    sound = WithoutSilence(reader, frames)
    if sound.sounding_s < MIN_DURATION_S:
        raise Silent(
            f"{sound.sounding_s:.1f} s of the track are louder than -70 dB of full scale, a track needs "
            f"{MIN_DURATION_S:g} s; upload a track that sounds"
        )
    windows = _read_windows(sound, plan, sound.count(frames), sample_rate)
    return {1000 * sound.position(start_ms * rate // 1000) // rate: waveform for start_ms, waveform in windows.items()}
