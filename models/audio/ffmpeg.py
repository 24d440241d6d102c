"""Files that FFmpeg decodes, through PyAV: aac, m4a, webm, wma, mp2, mp3 without a stated length, whatever is joined.

FFmpeg opens files and addresses that a playlist names. Here it gets an open file without a name, demuxers that follow
no names, and no protocol to open anything with.

PyAV is imported where it is used: a process that decodes nothing but wav does not load it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soxr  # pyright: ignore[reportMissingTypeStubs]

from models.audio.blocks import ADVICE, MAX_CHANNELS, PRE_ROLL_S, Float32, Mono, cut, joined, nameless
from models.errors import NotAudio

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

_CODECS = (
    "aac,ac3,adpcm_ima_wav,adpcm_ms,alac,eac3,flac,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,pcm_alaw,pcm_f32be,"
    "pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_u8,"
    "vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2"
)
_OPTIONS = {
    "format_whitelist": "aac,aiff,asf,caf,flac,matroska,mov,mp3,ogg,w64,wav,wv",
    "codec_whitelist": _CODECS,  # without it, opening a file would try its video too
    "protocol_whitelist": "",
}
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}  # of FFmpeg's sample formats
_JOINED_SAMPLES = 2**15  # an AAC frame has 1,024: too few to be worth a call of the resampler
_MAX_STREAMS = 8  # of audio in a file that are tried
_OTHER_RATES_HZ = range(8_000, 192_001)  # to which a stream may change
_INDEXED = {"asf", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"}  # containers that FFmpeg seeks without reading them
_GAPLESS = {"asf", "flac", "ogg"}  # containers in which a gap between packets is damage; in others it may be a pause
_LONGEST_STEP_S = 70.0  # from packet to packet: the longest has FLAC's 65,535 samples at 1,000 Hz
_SLACK_S = 0.5  # by which the times of packets may deviate from their lengths summed up
_GAP_S = 0.05


class PyavReader:
    """A Reader (models.audio.blocks) for the audio that FFmpeg decodes.

    The length is that of all packets, whatever the header says. Containers with an index are sought. In the others
    packets are counted from the beginning of the file, since their times begin anew in joined files, and decoded from
    where the part begins. Each part is read from the file opened anew, because seeking leaves traces in decoders.

    Args:
        file: open, and able to seek.
        max_duration_s: packets are counted to a little more than this.
        sample_rate: of the blocks, Hz; None for that of the first frame.

    Attributes:
        is_whole: whether no packets are missing, as far as the container tells.

    Raises:
        NotAudio: FFmpeg does not decode it either.
        MemoryError: the file asks for more memory than there is, or than FFmpeg ever takes.
    """

    def __init__(self, file: BinaryIO, *, max_duration_s: float, sample_rate: int | None = None) -> None:
        self._file = file
        self._begins_s: float | None = None
        self.lost_s = 0.0
        self.is_whole = True
        self._index, self._origin_s, first = self._first_frame()
        self.sample_rate = sample_rate or first.sample_rate  # the stream's is half of it in HE-AAC
        self.channels = first.layout.nb_channels
        self._begins_s, end_s = self._scan(self._origin_s + max_duration_s + _SLACK_S)
        self.frames = max(0, round((end_s - self._origin_s) * self.sample_rate))

    @contextmanager
    def _container(self) -> Generator[InputContainer]:
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
            yield container

    @contextmanager
    def _open(self) -> Generator[tuple[InputContainer, AudioStream]]:
        with self._container() as container:
            yield container, _ready(container.streams[self._index])

    def _first_frame(self) -> tuple[int, float, AudioFrame]:
        """The first stream that can be decoded: its index, and when its first frame begins, and that frame."""
        message = ""
        for place in range(_MAX_STREAMS):
            with self._container() as container:
                streams = _usable(container)
                if place >= len(streams):
                    message = message or f"the {container.format.name} file has no audio that can be decoded"
                    break
                stream = _ready(streams[place])
                for begins_s, frame in self._decoded(container, stream, 0.0):
                    return stream.index, begins_s, frame
                message = message or f"no {stream.codec_context.name} frame of the file can be decoded"
        raise NotAudio(f"{message}; {ADVICE}")

    def _scan(self, limit_s: float) -> tuple[float | None, float]:
        """The time that the first packet states, None where the times are not to be relied on; the end of the last one.

        Counting stops at the limit.
        """
        end_s, begins_s = 0.0, None
        with self._open() as (container, stream):
            tick_s = float(stream.time_base or 0)
            sought, gapless = container.format.name in _INDEXED, container.format.name in _GAPLESS
            for packet, time_s, length_s in _timed(container, stream):
                if sought and packet.pts is not None:
                    begins_s = packet.pts * tick_s - time_s if begins_s is None else begins_s
                    sought = abs(packet.pts * tick_s - time_s - begins_s) < _SLACK_S
                if gapless and time_s > end_s + _GAP_S:
                    self.is_whole = False
                end_s = max(end_s, time_s + length_s)
                if end_s >= limit_s:
                    break
        return begins_s if sought else None, end_s

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        """See Reader."""
        with self._open() as (container, stream):
            decoded = self._decoded(container, stream, start / self.sample_rate + self._origin_s - PRE_ROLL_S)
            first = next(decoded, None)
            if first is None:
                return
            position = round((first[0] - self._origin_s) * self.sample_rate)
            blocks = self._at_one_rate(chain([first[1]], (frame for _, frame in decoded)))
            yield from cut(blocks, position, max(start, position), frames)  # beyond damage, where the part begins in it

    def _at_one_rate(self, frames: Iterator[AudioFrame]) -> Iterator[Float32]:
        mono = Mono()
        for rate, alike in groupby(frames, lambda frame: frame.sample_rate):
            blocks = joined((mono(_samples(frame)) for frame in alike), samples=_JOINED_SAMPLES)
            if rate == self.sample_rate:
                yield from blocks
            elif rate in _OTHER_RATES_HZ:
                resampler = soxr.ResampleStream(rate, self.sample_rate, 1, "float32", "HQ")
                for block in blocks:
                    yield resampler.resample_chunk(block)
                yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _decoded(
        self, container: InputContainer, stream: AudioStream, from_s: float
    ) -> Iterator[tuple[float, AudioFrame]]:
        """When a frame begins, and the frame, from about from_s on; damage is passed over, and added to lost_s."""
        tick_s = float(stream.time_base or 0)
        joins, gapless = container.format.name == "ogg", container.format.name in _GAPLESS
        if self._begins_s is not None and from_s > 0:
            with _skipping_damage():  # where the seek fails, everything before is read
                container.seek(min(round((self._begins_s + from_s) / tick_s), 2**63 - 1), stream=stream)
        known_to_s, gap_s = None, _GAP_S  # what lies further behind known_to_s than gap_s is lost
        for packet, time_s, length_s in _timed(container, stream, begins_s=self._begins_s):
            if known_to_s is not None and time_s > known_to_s + gap_s:
                self.lost_s += time_s - known_to_s
            known_to_s = None
            if time_s + length_s < from_s and not (joins and not length_s):  # Ogg sets up decoders in empty packets
                continue
            frames: list[AudioFrame] = []
            known_to_s, gap_s = time_s, 0.0
            with _skipping_damage():
                frames = [frame for frame in packet.decode() if 1 <= frame.layout.nb_channels <= MAX_CHANNELS]
                heard_s = sum(frame.samples / frame.sample_rate for frame in frames)
                known_to_s = time_s + max(length_s, heard_s) if gapless else None
                gap_s = _GAP_S
            for frame in frames:
                offset = 0 if frame.pts is None or packet.pts is None else frame.pts - packet.pts
                yield time_s + offset * tick_s, frame


def _usable(container: InputContainer) -> list[AudioStream]:
    """The streams whose codec is allowed, the one that FFmpeg would choose before the others."""
    best = container.streams.best("audio")
    streams = sorted(container.streams.audio, key=lambda stream: stream is not best)
    allowed = _CODECS.split(",")
    return [stream for stream in streams if stream.codec_context and stream.codec_context.name in allowed]


def _ready(stream: Any) -> AudioStream:
    stream.codec_context.thread_count = 1
    if stream.codec_context.name == "flac":  # without it, damage is decoded to noise
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return stream


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


def _timed(
    container: InputContainer, stream: AudioStream, *, begins_s: float | None = None
) -> Iterator[tuple[Packet[AudioStream], float, float]]:
    """The stream's packets, up to where the file breaks off, each with its time and its length; the last one flushes.

    Time begins at 0 with the first packet, or, where begins_s is given, is what the first packet states less that. It
    goes on with the length of each packet where the times that packets state begin anew, or jump.
    """
    tick_s = float(stream.time_base or 0)
    time_s = length_s = 0.0
    last_s: float | None = None
    with _skipping_damage():
        for packet in container.demux(stream):
            stated_s = None if packet.pts is None else packet.pts * tick_s
            if stated_s is not None and last_s is not None and 0 <= stated_s - last_s <= _LONGEST_STEP_S:
                time_s += stated_s - last_s
            elif stated_s is not None and last_s is None and begins_s is not None:
                time_s = stated_s - begins_s
            else:
                time_s += length_s
            last_s = last_s if stated_s is None else stated_s
            length_s = (packet.duration or 0) * tick_s
            length_s = length_s if 0 <= length_s <= _LONGEST_STEP_S else 0.0
            yield packet, time_s, length_s


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
