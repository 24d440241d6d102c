"""Files that FFmpeg decodes, through PyAV: aac, m4a, webm, wma, mp3 without a stated length, and whatever else.

FFmpeg opens files and addresses that a playlist names. Here it gets an open file without a name, demuxers that follow
no names, and no protocol to open anything with.

PyAV is imported where it is used: a process that decodes nothing but wav and flac does not load it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from models.audio.blocks import ADVICE, PRE_ROLL_S, Float32, Mono, cut, joined, nameless
from models.errors import NotAudio

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

_CODECS = (
    "aac,ac3,adpcm_ima_wav,adpcm_ms,alac,eac3,flac,mp2float,mp3,mp3float,opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,"
    "pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_u8,vorbis,wavpack,"
    "wmalossless,wmapro,wmav1,wmav2"
)
_OPTIONS = {
    "format_whitelist": "aac,aiff,asf,caf,flac,matroska,mov,mp3,ogg,w64,wav,wv",
    "codec_whitelist": _CODECS,  # without it, opening a file would try its video too
    "protocol_whitelist": "",
}
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}  # of FFmpeg's sample formats
_LENGTH_IS_A_GUESS = {"aac", "mp3"}  # containers for which FFmpeg divides the file's size by a bit rate
_JOINED_SAMPLES = 2**15  # an AAC frame has 1,024: too few to be worth a call of the resampler


class PyavReader:
    """A Reader (models.audio.blocks) for the audio that FFmpeg decodes.

    Each part is read from the file opened anew, because seeking leaves traces in decoders.

    Raises:
        NotAudio: FFmpeg does not decode it either.
        MemoryError: the file asks for more memory than there is, or than FFmpeg ever takes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with self._open() as (container, stream):
            first = next(_frames(container, stream), None)
            if first is None:
                raise NotAudio(f"no {stream.codec_context.name} frame of the file can be decoded; {ADVICE}")
            self.sample_rate = first.sample_rate  # the stream's is half of it in HE-AAC
            self.channels = first.layout.nb_channels
            self._form = _form(first)
            self._first_s = _time_s(first)
            self.claimed_frames = _claimed_frames(container, stream, self.sample_rate)

    @contextmanager
    def _open(self) -> Generator[tuple[InputContainer, AudioStream]]:
        import av
        from av.error import FFmpegError

        try:
            container: Any = av.open(nameless(self._file), "r", options=_OPTIONS, metadata_errors="replace")
        except MemoryError:  # PyAV's is an FFmpegError too
            raise
        except FFmpegError as error:
            self._file.seek(0)
            raise NotAudio(f"no decoder reads a file that begins with {self._file.read(12)}; {ADVICE}") from error
        with container:
            stream = container.streams.best("audio")
            codec = stream.codec_context if isinstance(stream, av.AudioStream) else None
            if codec is None or codec.name not in _CODECS.split(","):
                raise NotAudio(f"the {container.format.name} file has no audio that can be decoded; {ADVICE}")
            stream.codec_context.thread_count = 1
            yield container, stream

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        """As of Reader."""
        mono = Mono()
        with self._open() as (container, stream):
            seek_s = start / self.sample_rate - PRE_ROLL_S
            if seek_s > 0:
                with _skipping_damage():  # where the seek fails, everything before is decoded and dropped
                    container.seek(int((self._first_s + Fraction(seek_s)) / (stream.time_base or 1)), stream=stream)
            alike = takewhile(lambda frame: _form(frame) == self._form, _frames(container, stream))
            first = next(alike, None)
            if first is None:
                return
            position = round((_time_s(first) - self._first_s) * self.sample_rate)
            blocks = (mono(_samples(frame)) for frame in chain([first], alike))
            yield from cut(joined(blocks, samples=_JOINED_SAMPLES), position, start, frames)

    def count(self, limit: int) -> int:
        """As of Reader; it reads the times of the packets, and decodes nothing."""
        end = 0
        with self._open() as (container, stream):
            for packet in _packets(container, stream):
                end_s = _time_s(packet) + (packet.duration or 0) * packet.time_base - self._first_s
                end = max(end, round(end_s * self.sample_rate))
                if end >= limit:
                    break
        return end


@contextmanager
def _skipping_damage() -> Generator[None]:
    """Errors of FFmpeg end the block and no more; want of memory is raised."""
    from av.error import FFmpegError

    try:
        yield
    except MemoryError:  # PyAV's is an FFmpegError too
        raise
    except FFmpegError:
        pass


def _packets(container: InputContainer, stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    """The stream's packets, up to where the file breaks off; the last one flushes the decoder."""
    with _skipping_damage():
        yield from container.demux(stream)


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """The stream's decoded frames; packets that cannot be decoded are passed over."""
    for packet in _packets(container, stream):
        frames: list[AudioFrame] = []
        with _skipping_damage():
            frames = packet.decode()
        yield from frames


def _form(frame: AudioFrame) -> tuple[str, int, int]:
    """Sample format, channels and sample rate: the track ends at the first frame of another form."""
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate


def _claimed_frames(container: InputContainer, stream: AudioStream, sample_rate: int) -> int | None:
    if container.format.name in _LENGTH_IS_A_GUESS:
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
