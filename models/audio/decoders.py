"""Which decoder reads a music file: libsndfile where it reads all of it, else FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from models.audio.blocks import Float32
from models.audio.ffmpeg import PyavReader
from models.audio.sndfile import SndfileReader, Unfit
from models.errors import NotAudio

_SLACK_S = 0.5  # encoders' run-up and padding, which one decoder counts and the other does not


class AudioFile:
    """A Reader (models.audio.blocks) of a file in any format.

    libsndfile believes the header of a compressed file, knows nothing of what was joined to it, and ends at the first
    damage or change of format. So FFmpeg counts the packets of a file for whose length only the header speaks: where
    some are missing or it comes to another length, it decodes the file. And where libsndfile ends before it should,
    FFmpeg goes on from there.

    Args:
        file: open, and able to seek.
        max_duration_s: the length of a longer file is given as a little more than this.

    Raises:
        NotAudio: no decoder reads it.
        MemoryError: the file asks for more memory than there is, or than FFmpeg ever takes.
    """

    def __init__(self, file: BinaryIO, *, max_duration_s: float) -> None:
        self._file = file
        self._max_duration_s = max_duration_s
        self._reader = self._opened()
        self.sample_rate = self._reader.sample_rate
        self.channels = self._reader.channels
        self.frames = self._reader.frames

    def _opened(self) -> SndfileReader | PyavReader:
        try:
            reader = SndfileReader(self._file, max_duration_s=self._max_duration_s)
        except Unfit:
            return PyavReader(self._file, max_duration_s=self._max_duration_s)
        other = None if reader.is_sure else self._other(reader.sample_rate)
        limit = self._max_duration_s * reader.sample_rate
        slack = _SLACK_S * reader.sample_rate
        if other and (not other.is_whole or abs(min(reader.frames, limit) - min(other.frames, limit)) > slack):
            return other
        return reader

    def _other(self, sample_rate: int) -> PyavReader | None:
        try:
            return PyavReader(self._file, max_duration_s=self._max_duration_s, sample_rate=sample_rate)
        except NotAudio:
            return None

    @property
    def lost_s(self) -> float:
        """See Reader."""
        return self._reader.lost_s

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        """See Reader."""
        position, end = start, min(start + frames, self.frames)
        for block in self._reader.blocks(start, frames):
            position += len(block)
            yield block
        if end - position > _SLACK_S * self.sample_rate and self._takes_over():
            yield from self._reader.blocks(position, end - position)

    def _takes_over(self) -> bool:
        """Whether there is another decoder; from now on it reads the file."""
        if isinstance(self._reader, PyavReader) or not self._reader.is_compressed:
            return False
        other = self._other(self.sample_rate)
        self._reader = other or self._reader
        return other is not None
