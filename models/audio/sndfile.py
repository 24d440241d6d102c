"""Files that libsndfile decodes: wav, aiff, flac, ogg (Vorbis and Opus), mp3 with its length stated, and relatives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import soundfile  # pyright: ignore[reportMissingTypeStubs]

from models.audio.blocks import PRE_ROLL_S, Float32, Mono, cut, nameless

_FORMATS = {"AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "W64", "WAV", "WAVEX"}
_BLOCK_SAMPLES = 2**15  # of all channels together; where libsndfile meets damage, the whole block is lost


class Unfit(Exception):
    """libsndfile does not read the file, or does not read it well: another decoder should."""


class _SoundFile(soundfile.SoundFile):
    """A SoundFile whose blocks follow one another.

    After every read, soundfile seeks to where it already is. That takes time, and libsndfile's MP3 decoder forgets
    what the next frames build on. soundfile leaves the seek out where a file says that it cannot seek.
    """

    def seekable(self) -> bool:
        return False


class SndfileReader:
    """A Reader (models.audio.blocks) for what libsndfile decodes.

    Each part is read from the file opened anew, because libsndfile does not find back from the end of a FLAC file.

    Raises:
        Unfit: another decoder should read the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        try:
            sound = self._open()
        except soundfile.LibsndfileError as error:
            raise Unfit(str(error)) from error
        with sound:
            if sound.format not in _FORMATS:
                raise Unfit("not a format of music")
            if sound.frames == 0:
                raise Unfit("the header was never finished")
            if sound.format == "MP3" and not _states_length(file):
                raise Unfit("libsndfile guesses the length from the first frame, and reads no more than that")
            self.sample_rate: int = sound.samplerate
            self.channels: int = sound.channels
            self.claimed_frames: int | None = sound.frames

    def _open(self) -> Any:
        return _SoundFile(nameless(self._file))

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        """As of Reader."""
        begin = max(0, start - round(PRE_ROLL_S * self.sample_rate))
        yield from cut(self._blocks_from(begin), begin, start, frames)

    def _blocks_from(self, start: int) -> Iterator[Float32]:
        mono = Mono()
        with self._open() as sound, suppress(soundfile.LibsndfileError):  # the audio ends where the decoder gives up
            sound.seek(start)
            while len(block := sound.read(_BLOCK_SAMPLES // self.channels, dtype="float32", always_2d=True)):
                yield mono(block.T)

    def count(self, limit: int) -> int:
        """As of Reader."""
        return sum(map(len, self.blocks(0, limit)))


def _states_length(file: BinaryIO) -> bool:
    """Whether an MP3 file starts with the frame in which encoders note its length (Xing, LAME, Fraunhofer)."""
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3":  # a tag comes first; its length is written with 7 bits a byte
        file.seek(10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
    first_frame = file.read(1500)
    return any(mark in first_frame for mark in (b"Xing", b"Info", b"VBRI"))
