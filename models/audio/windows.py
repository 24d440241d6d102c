"""A music file -> mono waveforms at a model's sample rate: which windows of a track are heard, and what cannot be.

libsndfile decodes what it can (wav, aiff, flac, ogg vorbis and opus, mp3 ...), FFmpeg through PyAV the rest
(aac, m4a, webm, wma, joined and damaged files ...). Mono is the mean of the channels and soxr's HQ converts the rate,
so that a file sounds as librosa.load(path, sr=...) would have it: FFmpeg's own down-mix is 3 dB louder than the mean.

What a file says about itself is not relied on: its length is that of its packets. Windows are taken where there is
sound: where one of them meets a long silence, the whole track is looked through, and heard as if its long silences were
not there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from models.audio.blocks import ADVICE, MAX_CHANNELS, SAMPLE_RATES_HZ, Float32, Reader, resampled
from models.audio.decoders import AudioFile
from models.audio.silence import Levels, WithoutSilence
from models.errors import Damaged, NotAudio, SettingsError, Silent, TooLong, TooShort

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
        lost_s: how much audio in and just before the windows was found damaged, and was skipped, s.
        at_rates: the waveforms of the same windows at further sample rates, by the rate.
    """

    waveforms: tuple[Float32, ...]
    starts_ms: tuple[int, ...]
    duration_s: float
    sample_rate: int
    lost_s: float
    at_rates: Mapping[int, tuple[Float32, ...]]


def decode_windows(
    source: Source, *, plan: WindowPlan, sample_rate: int, max_duration_s: float, further_rates: Collection[int] = ()
) -> Windows:
    """Decode the windows of a track, and little more than them where the format can seek.

        audio = decode_windows("song.mp3", plan=WindowPlan(), sample_rate=16_000, max_duration_s=3 * 3600)
        audio.starts_ms           # (15000, 75000, 135000), of a song of 3 minutes
        audio.waveforms[0].shape  # (480000,): 30 s from 0:15 on

    Args:
        source: a path, the bytes of a file, or an open binary file that can seek (it stays open, at any position).
        plan: which windows.
        sample_rate: of the waveforms, Hz. Where there is sound is looked at at this rate.
        max_duration_s: longest track.
        further_rates: Hz. For each of them, the windows are decoded once more.

    Returns:
        At least one window. NaN samples count as silence.

    Raises:
        NotAudio: no decoder reads it, or it has no audio, or a sample rate or channels beyond all use.
        Damaged: more audio was found damaged than could be heard.
        TooShort: under 3 s can be decoded. A truncated file with more is audio.
        TooLong: over max_duration_s can be decoded.
        Silent: under 3 s of it are louder than -70 dB of full scale.
        MemoryError: the file asks for more memory than there is, or than FFmpeg ever takes.
        OSError: the path cannot be opened.
    """
    with _reader(source, max_duration_s=max_duration_s) as reader:
        duration_s = reader.frames / reader.sample_rate
        if duration_s > max_duration_s:
            raise _too_long(max_duration_s)
        waveforms = _read_windows(reader, plan, sample_rate)
        heard_s, lost_s = sum(map(len, waveforms.values())) / sample_rate, reader.lost_s
        if lost_s > heard_s:
            raise Damaged(
                f"{lost_s:.1f} s of the track are damaged, {heard_s:.1f} s can be heard; upload an intact file"
            )
        waveforms = _long_enough(waveforms, sample_rate)
        sound, starts_ms = reader, tuple(waveforms)
        if _disappoint(waveforms.values(), sample_rate):
            sound = _without_silence(reader)
            waveforms = _long_enough(_read_windows(sound, plan, sample_rate), sample_rate)
            starts_ms = tuple(_in_track_ms(sound, start_ms) for start_ms in waveforms)
        at_rates = {rate: _read_again(sound, plan, rate, starts_ms=waveforms) for rate in further_rates}
    return Windows(
        waveforms=tuple(waveforms.values()),
        starts_ms=starts_ms,
        duration_s=duration_s,
        sample_rate=sample_rate,
        lost_s=lost_s,
        at_rates=at_rates,
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
    with _reader(source, max_duration_s=max_duration_s) as reader:
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
def _reader(source: Source, *, max_duration_s: float) -> Generator[Reader]:
    """The file, opened by the decoder that fits it."""
    if isinstance(source, str | PathLike):
        with Path(source).open("rb") as file, _reader(file, max_duration_s=max_duration_s) as reader:
            yield reader
        return
    file = BytesIO(source) if isinstance(source, bytes) else source
    reader = AudioFile(file, max_duration_s=max_duration_s)
    if not SAMPLE_RATES_HZ[0] <= reader.sample_rate <= SAMPLE_RATES_HZ[1]:
        raise NotAudio(f"the file has {reader.sample_rate} samples a second; convert it to 8000 to 192000")
    if not 1 <= reader.channels <= MAX_CHANNELS:
        raise NotAudio(f"the file has {reader.channels} channels; convert it to at most {MAX_CHANNELS}")
    yield reader


def _read_windows(reader: Reader, plan: WindowPlan, sample_rate: int) -> dict[int, Float32]:
    """The plan's windows of a track, by their starts in milliseconds."""
    rate = reader.sample_rate
    return {
        1000 * start_s: resampled(reader, start=start_s * rate, frames=plan.window_s * rate, sample_rate=sample_rate)
        for start_s in plan.starts_s(reader.frames / rate)
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


def _without_silence(reader: Reader) -> WithoutSilence:
    """The track without its long silences. Raises Silent where it has less sound than a track needs."""
    sound = WithoutSilence(reader)
    if sound.sounding_s < MIN_DURATION_S:
        raise Silent(
            f"{sound.sounding_s:.1f} s of the track are louder than -70 dB of full scale, a track needs "
            f"{MIN_DURATION_S:g} s; upload a track that sounds"
        )
    return sound


def _in_track_ms(sound: WithoutSilence, start_ms: int) -> int:
    """Where a moment of the track without its silences lies in the track, in milliseconds."""
    rate = sound.sample_rate
    return 1000 * sound.position(start_ms * rate // 1000) // rate


def _read_again(reader: Reader, plan: WindowPlan, sample_rate: int, *, starts_ms: Iterable[int]) -> tuple[Float32, ...]:
    """Those of the plan's windows that begin at these moments."""
    waveforms = _read_windows(reader, plan, sample_rate)
    return tuple(waveforms[start_ms] for start_ms in starts_ms)
