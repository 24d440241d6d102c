"""Files that libsndfile decodes: wav, aiff, flac, ogg (Vorbis and Opus), mp3 with its length stated, and relatives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import soundfile  # pyright: ignore[reportMissingTypeStubs]

from models.audio.blocks import PRE_ROLL_S, Float32, Mono, cut, nameless

_FORMATS = {"AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "W64", "WAV", "WAVEX"}
_COMPRESSED = {"FLAC", "MP3", "OGG"}
_MP3_BIT_RATES = (7_000, 350_000)
_TAG_BYTES = 4096  # at the end of an MP3 file
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

    Args:
        file: open, and able to seek.
        max_duration_s: where the file is not as long as its header says, frames are counted to a little more than this.

    Attributes:
        is_compressed: whether libsndfile may end before the audio does, at damage or where joined audio begins.
        is_sure: whether more than the header speaks for the length.

    Raises:
        Unfit: another decoder should read the file.
    """

    lost_s = 0.0

    def __init__(self, file: BinaryIO, *, max_duration_s: float) -> None:
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
            stated_bytes, held_bytes = _mp3_bytes(file) if sound.format == "MP3" else (0, 0)
            if stated_bytes is None:
                raise Unfit("libsndfile guesses the length from the first frame, and reads no more than that")
            self.sample_rate: int = sound.samplerate
            self.channels: int = sound.channels
            self.is_compressed = sound.format in _COMPRESSED
            self.frames: int = sound.frames
            bit_rate = 8 * stated_bytes * self.sample_rate / self.frames
            is_all_of_it = (
                abs(held_bytes - stated_bytes) < _TAG_BYTES and _MP3_BIT_RATES[0] < bit_rate < _MP3_BIT_RATES[1]
            )
            self.is_sure = not self.is_compressed or is_all_of_it
        limit = int(max_duration_s * self.sample_rate) + 1
        if not self.is_compressed and not any(map(len, self.blocks(min(self.frames, limit) - 1, 1))):
            self.frames = sum(map(len, self.blocks(0, limit)))

    def _open(self) -> Any:
        return _SoundFile(nameless(self._file))

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        """See Reader."""
        begin = max(0, start - round(PRE_ROLL_S * self.sample_rate))
        yield from cut(self._blocks_from(begin), begin, start, frames)

    def _blocks_from(self, start: int) -> Iterator[Float32]:
        mono = Mono()
        with self._open() as sound, suppress(soundfile.LibsndfileError):  # the audio ends where the decoder gives up
            sound.seek(start)
            while len(block := sound.read(_BLOCK_SAMPLES // self.channels, dtype="float32", always_2d=True)):
                yield mono(block.T)


def _mp3_bytes(file: BinaryIO) -> tuple[int | None, int]:
    """How many bytes of audio an MP3 file states, and how many it has.

    Encoders note the length in the first frame (Xing, LAME, Fraunhofer). None where there is no such note, and 0 where
    it says nothing of bytes.
    """
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(10)
    begin = 0
    if head[:3] == b"ID3":  # a tag comes first; its length is written with 7 bits a byte
        begin = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    file.seek(begin)
    first_frame = file.read(1500)
    for mark in (b"Xing", b"Info"):
        _, mark_there, note = first_frame.partition(mark)
        if mark_there:  # flags, then the number of frames, then that of bytes
            return int.from_bytes(note[8:12]) if len(note) >= 12 and note[3] & 3 == 3 else 0, file_bytes - begin
    return 0 if b"VBRI" in first_frame else None, 0
