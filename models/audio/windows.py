"""A music file -> mono waveforms at a model's sample rate: decoding, the windows of a track, what cannot be heard.

libsndfile decodes what it can (wav, aiff, flac, ogg vorbis and opus, mp3 ...), FFmpeg through PyAV the rest
(aac, m4a, webm, wma ...). Mono is the mean of the channels and soxr's HQ converts the rate, so that a file
sounds as librosa.load(path, sr=...) would have it: FFmpeg's own down-mix is 3 dB louder than the mean.

Nothing that a file says about itself is trusted for more than a first guess: its length is checked against
what can be decoded, and audio is read in blocks, so that memory is bounded whatever a header claims.

FFmpeg opens files and addresses that a playlist names. It gets an open file without a name, demuxers that
name no others, and no protocol to open anything with.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import chain, takewhile
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs]
import soxr  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from models.errors import NotAudio, SettingsError, Silent, TooLong, TooShort

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

Float32 = NDArray[np.float32]
Source = str | PathLike[str] | bytes | BinaryIO

MIN_DURATION_S = 3.0
"""Less cannot be tagged: musicnn hears 3 s at a time."""

SUFFIXES = frozenset(
    [".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma"]
)
"""What music files in a folder end in. A file that is named on its own may end in anything."""

SAMPLE_RATES_HZ = (1_000, 768_000)
MAX_CHANNELS = 64
_HELD_AT = 16.0  # +24 dB over full scale
_SILENCE = 2.0**-16  # half a step of 16 bits
_BLOCK_SAMPLES = 2**15  # of all channels; the block in which libsndfile stumbles is lost
_JOINED_SAMPLES = 2**15
_SLACK_S = 0.5  # a window that ends up shorter by more shows that the track is not as long as its header says
_PRE_ROLL_S = 0.5  # decoded and dropped after a seek: codecs build on what came before (Opus for 80 ms)

_SNDFILE_FORMATS = {"AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "W64", "WAV", "WAVEX"}
_PYAV_CODECS = (
    "aac,ac3,adpcm_ima_wav,adpcm_ms,alac,eac3,flac,mp2float,mp3,mp3float,opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,"
    "pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_u8,vorbis,wavpack,"
    "wmalossless,wmapro,wmav1,wmav2"
)
_PYAV_OPTIONS = {
    "format_whitelist": "aac,aiff,asf,caf,flac,matroska,mov,mp3,ogg,w64,wav,wv",
    "codec_whitelist": _PYAV_CODECS,  # or opening a file would try its video too
    "protocol_whitelist": "",
}
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}  # of PyAV's sample formats
_PYAV_GUESSES_LENGTH = {"aac", "mp3"}
_ADVICE = "upload an mp3, m4a, flac, wav, ogg, opus or webm file"


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
        """Starts of the windows of a track of duration_s, in seconds, in order."""
        windows = max(1, min(self.count, int(duration_s / self.window_s)))
        part_s = duration_s / windows
        return tuple(max(0, int((window + 0.5) * part_s - self.window_s / 2)) for window in range(windows))


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The decoded windows of a track.

    Attributes:
        waveforms: float32, mono, finite, full scale +-1 and held within about +-16; each of the plan's length
            where the track has as much, and at least 3 s.
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

    Args:
        source: a path, the bytes of a file, or an open binary file that can seek (left open, anywhere).
        plan: which windows.
        sample_rate: of the waveforms, Hz.
        max_duration_s: longest track.

    Returns:
        At least one window. NaN samples count as silence.

    Raises:
        NotAudio: no decoder reads it, or it has no audio, or a sample rate or channels beyond all use.
        TooShort: under 3 s can be decoded. A truncated file with more is audio.
        TooLong: over max_duration_s can be decoded.
        Silent: no sample of any window reaches half a step of 16 bits.
        MemoryError: the file asks for more memory than there is, or than FFmpeg ever takes.
        OSError: the path cannot be opened.
    """
    with _reader(source) as reader:
        limit = int(max_duration_s * reader.sample_rate)
        frames = reader.claimed_frames
        if frames is not None and frames > limit:
            if any(map(len, reader.blocks(limit, 1))):
                raise _too_long(max_duration_s)
            frames = None
        windows = {} if frames is None else _read_windows(reader, plan, frames, sample_rate)
        if frames is None or not _is_complete(windows, min(plan.window_s, frames / reader.sample_rate), sample_rate):
            frames = reader.count(limit + 1)
            if frames > limit:
                raise _too_long(max_duration_s)
            windows = _read_windows(reader, plan, frames, sample_rate)
        duration_s = frames / reader.sample_rate
    heard = {start_s: found for start_s, found in windows.items() if len(found) >= MIN_DURATION_S * sample_rate}
    if not heard:
        raise _too_short(max(map(len, windows.values())) / sample_rate)
    if max(np.abs(waveform).max() for waveform in heard.values()) < _SILENCE:
        raise Silent(f"all {len(heard)} windows of the track are digital silence; upload a track that sounds")
    return Windows(
        waveforms=tuple(heard.values()),
        starts_ms=tuple(1000 * start_s for start_s in heard),
        duration_s=duration_s,
        sample_rate=sample_rate,
    )


def decode_whole(source: Source, *, sample_rate: int, max_duration_s: float) -> Float32:
    """Decode a whole file, as librosa.load(source, sr=sample_rate) does.

    Args:
        source: as of decode_windows.
        sample_rate: of the waveform, Hz.
        max_duration_s: longest track.

    Returns:
        (samples,) mono.

    Raises:
        NotAudio, TooShort, TooLong, MemoryError, OSError: as decode_windows. Silence is decoded like any sound.
    """
    with _reader(source) as reader:
        limit = int(max_duration_s * reader.sample_rate)
        waveform = _read(reader, 0, limit + 1, sample_rate)
    if len(waveform) > max_duration_s * sample_rate:
        raise _too_long(max_duration_s)
    if len(waveform) < MIN_DURATION_S * sample_rate:
        raise _too_short(len(waveform) / sample_rate)
    return waveform


def _too_long(max_duration_s: float) -> TooLong:
    return TooLong(f"the track is longer than {max_duration_s:g} s, the longest taken; cut it or raise the limit")


def _too_short(duration_s: float) -> TooShort | NotAudio:
    if duration_s == 0:
        return NotAudio(f"not a sample of audio can be decoded; {_ADVICE}")
    return TooShort(f"{duration_s:.2f} s of audio can be decoded, a track needs {MIN_DURATION_S:g} s; {_ADVICE}")


class _Reader(Protocol):
    """A file that a decoder has opened; frames are counted at its own sample rate."""

    sample_rate: int
    channels: int
    claimed_frames: int | None
    """Length that the file claims for itself, if it does."""

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        """Mono audio from a frame on: `frames` frames, or fewer where the audio ends before."""
        ...

    def count(self, limit: int) -> int:
        """How many frames there really are; at least limit where there are more."""
        ...


@contextmanager
def _reader(source: Source) -> Generator[_Reader]:
    if isinstance(source, str | PathLike):
        with Path(source).open("rb") as file, _reader(file) as reader:
            yield reader
        return
    file = BytesIO(source) if isinstance(source, bytes) else source
    try:
        reader = _SndfileReader(file)
    except (soundfile.LibsndfileError, _Unfit):
        reader = _PyavReader(file)
    if not SAMPLE_RATES_HZ[0] <= reader.sample_rate <= SAMPLE_RATES_HZ[1]:
        raise NotAudio(f"the file has {reader.sample_rate} samples a second; convert it to 8000 to 192000")
    if not 1 <= reader.channels <= MAX_CHANNELS:
        raise NotAudio(f"the file has {reader.channels} channels; convert it to at most {MAX_CHANNELS}")
    yield reader


def _nameless(file: Any) -> Any:
    """The file as decoders get it, from its beginning: a name would have them guess a format from its ending."""
    file.seek(0)
    return SimpleNamespace(read=file.read, readinto=file.readinto, seek=file.seek, tell=file.tell)


def _read_windows(reader: _Reader, plan: WindowPlan, frames: int, sample_rate: int) -> dict[int, Float32]:
    """The plan's windows of a track of so many frames, by their starts in seconds."""
    rate = reader.sample_rate
    return {
        start_s: _read(reader, start_s * rate, plan.window_s * rate, sample_rate)
        for start_s in plan.starts_s(frames / rate)
    }


def _is_complete(windows: dict[int, Float32], expected_s: float, sample_rate: int) -> bool:
    """Whether there are windows, and none is shorter than its track's claimed length lets expect."""
    return bool(windows) and min(map(len, windows.values())) > (expected_s - _SLACK_S) * sample_rate


def _read(reader: _Reader, start: int, frames: int, sample_rate: int) -> Float32:
    """Part of a track at sample_rate, as long as librosa.resample makes it (rounded up)."""
    resampler = soxr.ResampleStream(reader.sample_rate, sample_rate, 1, "float32", "HQ")
    read, chunks = 0, list[Float32]()
    for block in reader.blocks(start, frames):
        read += len(block)
        held = np.clip(block, -_HELD_AT, _HELD_AT)
        held[np.isnan(held)] = 0.0
        chunks.append(resampler.resample_chunk(held))
    chunks.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    samples = np.concatenate(chunks)
    return np.pad(samples, (0, max(0, math.ceil(read * sample_rate / reader.sample_rate) - len(samples))))


def _cut(blocks: Iterator[Float32], position: int, start: int, frames: int) -> Iterator[Float32]:
    """What lies in [start, start + frames) of blocks that begin at position."""
    for block in blocks:
        part = block[max(0, start - position) : max(0, start + frames - position)]
        position += len(block)
        if len(part):
            yield part
        if position >= start + frames:
            return


def _mono(samples: Float32) -> Float32:
    """The mean of (channels, frames)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total: Any = sum(samples)  # 20 times as fast as mean(axis=0) on interleaved channels
        return total / np.float32(len(samples))


class _Unfit(Exception):
    """libsndfile opens the file, and it should not be the one to read it."""


class _Sound(soundfile.SoundFile):
    """A SoundFile that lets blocks follow one another: after each read it would seek to where it is, which costs time
    and makes the MP3 decoder forget what the next frames build on.
    """

    def seekable(self) -> bool:
        return False


class _SndfileReader:
    """What libsndfile reads. Each part comes from a file opened anew: it does not find back from the end of a FLAC."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with self._open() as sound:
            if sound.format not in _SNDFILE_FORMATS:
                raise _Unfit("not a format of music")
            if sound.frames == 0:
                raise _Unfit("the header was never finished")
            if sound.format == "MP3" and not _states_length(file):
                raise _Unfit("its length is guessed from the first frame, and no more would be read")
            self.sample_rate: int = sound.samplerate
            self.channels: int = sound.channels
            self.claimed_frames: int | None = sound.frames

    def _open(self) -> Any:
        return _Sound(_nameless(self._file))

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        begin = max(0, start - round(_PRE_ROLL_S * self.sample_rate))
        yield from _cut(self._from(begin), begin, start, frames)

    def _from(self, start: int) -> Iterator[Float32]:
        with self._open() as sound, suppress(soundfile.LibsndfileError):  # the audio ends where the decoder gives up
            sound.seek(start)
            while len(block := sound.read(_BLOCK_SAMPLES // self.channels, dtype="float32", always_2d=True)):
                yield _mono(block.T)

    def count(self, limit: int) -> int:
        return sum(map(len, self.blocks(0, limit)))


def _states_length(file: BinaryIO) -> bool:
    """Whether an MP3 file starts with the frame in which encoders note its length (Xing, LAME, Fraunhofer)."""
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3":  # a tag and its length, 7 bits a byte, come first
        file.seek(10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
    first_frame = file.read(1500)
    return any(mark in first_frame for mark in (b"Xing", b"Info", b"VBRI"))


class _PyavReader:
    """What FFmpeg reads, audio alone. Each part comes from a file opened anew: seeking leaves traces in decoders."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with self._open() as (container, stream):
            first = next(_frames(container, stream), None)
            if first is None:
                raise NotAudio(f"no {stream.codec_context.name} frame of the file can be decoded; {_ADVICE}")
            self.sample_rate = first.sample_rate  # the stream's is half of it in HE-AAC
            self.channels = first.layout.nb_channels
            self._kind = _kind(first)
            self._first_s = _time_s(first)
            self.claimed_frames = _claimed_frames(container, stream, self.sample_rate)

    @contextmanager
    def _open(self) -> Generator[tuple[InputContainer, AudioStream]]:
        import av
        from av.error import FFmpegError

        try:
            container: Any = av.open(_nameless(self._file), "r", options=_PYAV_OPTIONS, metadata_errors="replace")
        except MemoryError:
            raise
        except FFmpegError as error:
            self._file.seek(0)
            raise NotAudio(f"no decoder reads a file that begins with {self._file.read(12)}; {_ADVICE}") from error
        with container:
            stream = container.streams.best("audio")
            codec = stream.codec_context if isinstance(stream, av.AudioStream) else None
            if codec is None or codec.name not in _PYAV_CODECS.split(","):
                raise NotAudio(f"the {container.format.name} file has no audio that can be decoded; {_ADVICE}")
            stream.codec_context.thread_count = 1
            yield container, stream

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        with self._open() as (container, stream):
            seek_s = start / self.sample_rate - _PRE_ROLL_S
            if seek_s > 0:
                with _damage_passed_over():  # then everything before is decoded and dropped
                    container.seek(int((self._first_s + Fraction(seek_s)) / (stream.time_base or 1)), stream=stream)
            decoded = takewhile(lambda frame: _kind(frame) == self._kind, _frames(container, stream))
            first = next(decoded, None)
            if first is None:
                return
            position = round((_time_s(first) - self._first_s) * self.sample_rate)
            blocks = (_mono(_samples(frame)) for frame in chain([first], decoded))
            yield from _cut(_joined(blocks), position, start, frames)

    def count(self, limit: int) -> int:
        end = 0
        with self._open() as (container, stream):
            for packet in _packets(container, stream):
                end_s = _time_s(packet) + (packet.duration or 0) * packet.time_base - self._first_s
                end = max(end, round(end_s * self.sample_rate))
                if end >= limit:
                    break
        return end


@contextmanager
def _damage_passed_over() -> Generator[None]:
    from av.error import FFmpegError

    try:
        yield
    except MemoryError:
        raise
    except FFmpegError:
        pass


def _packets(container: InputContainer, stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    """The stream's packets, up to where the file breaks off; the last one flushes the decoder."""
    with _damage_passed_over():
        yield from container.demux(stream)


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """The stream's decoded frames."""
    for packet in _packets(container, stream):
        frames: list[AudioFrame] = []
        with _damage_passed_over():
            frames = packet.decode()
        yield from frames


def _kind(frame: AudioFrame) -> tuple[str, int, int]:
    """What stays as it is within a track."""
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate


def _joined(blocks: Iterator[Float32]) -> Iterator[Float32]:
    """Blocks joined until they are worth a call (AAC has 1,024 samples in each)."""
    parts, samples = list[Float32](), 0
    for block in blocks:
        parts.append(block)
        samples += len(block)
        if samples >= _JOINED_SAMPLES:
            yield np.concatenate(parts)
            parts, samples = [], 0
    if parts:
        yield np.concatenate(parts)


def _claimed_frames(container: InputContainer, stream: AudioStream, sample_rate: int) -> int | None:
    if container.format.name in _PYAV_GUESSES_LENGTH:  # from the bit rate
        return None
    if stream.duration and stream.time_base:
        frames = round(stream.duration * stream.time_base * sample_rate)
    else:
        frames = (container.duration or 0) * sample_rate // 1_000_000
    return frames if frames > 0 else None


def _time_s(part: AudioFrame | Packet[AudioStream]) -> Fraction:
    return (part.pts or 0) * (part.time_base or Fraction(0))


def _samples(frame: AudioFrame) -> Float32:
    """The samples of a frame as (channels, samples), full scale +-1."""
    from av.audio.plane import AudioPlane

    channels = frame.layout.nb_channels
    dtype = np.dtype(_DTYPES[frame.format.name.removesuffix("p")])
    # Not frame.planes or to_ndarray(): of 8 channels and more they read past the last one, into any memory.
    plane: Any = AudioPlane
    if frame.format.is_planar:
        samples = np.stack([np.frombuffer(plane(frame, channel), dtype, frame.samples) for channel in range(channels)])
    else:
        samples = np.frombuffer(plane(frame, 0), dtype, frame.samples * channels).reshape(-1, channels).T
    if dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    full_scale = np.float32(2.0 ** (frame.format.bits - 1))
    return samples.astype(np.float32) / full_scale - np.float32(dtype.kind == "u")
