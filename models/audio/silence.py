"""Where a track is silent, and the track without its long silences.

A tenth of a second sounds that reaches -70 dB of full scale: the absolute gate of ITU-R BS.1770, without its weighting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.audio.blocks import Float32, Reader, sound_of

LONG_SILENCE_S = 1.0
"""A longer silence is left out of a track; a shorter one is a rest of the music."""

_GATE = 1e-7  # mean square of -70 dB
_STEPS_PER_S = 10
_REST_S = 0.4  # the length of BS.1770's gating blocks, which bridge shorter rests
_SCANNED_S = 1200  # of longer tracks, no more than this is looked through, in pieces
_PIECE_S = 60  # more and shorter ones cost more: some files are read from their beginning up to each
_SOUGHT_S = 60  # a longer gap is sought over, a shorter one is decoded and dropped


class Levels:
    """Which tenths of a second of some audio sound.

    Attributes:
        sounds: (steps,) bool, without what is left at the end.
    """

    def __init__(self, blocks: Iterable[Float32], *, sample_rate: int) -> None:
        step = sample_rate // _STEPS_PER_S
        sounds, rest = [np.empty(0, np.bool_)], np.empty(0, np.float32)
        for block in blocks:
            waveform = np.concatenate([rest, sound_of(block)])
            whole = waveform[: len(waveform) // step * step].reshape(-1, step)
            sounds.append(np.einsum("ij,ij->i", whole, whole) >= _GATE * step)
            rest = waveform[whole.size :]
        self.sounds = np.concatenate(sounds)

    @property
    def sounding_s(self) -> float:
        """How long the audio sounds, rests of up to 0.4 s included."""
        return (len(self.sounds) - sum(end - start for start, end in self._silences(_REST_S))) / _STEPS_PER_S

    @property
    def has_long_silence(self) -> bool:
        """Whether a silence of the audio is longer than LONG_SILENCE_S."""
        return bool(self._silences(LONG_SILENCE_S))

    def kept(self) -> NDArray[np.bool_]:
        """(steps,) which steps are no part of a long silence."""
        kept = np.ones(len(self.sounds), np.bool_)
        for start, end in self._silences(LONG_SILENCE_S):
            kept[start:end] = False
        return kept

    def _silences(self, longer_than_s: float) -> list[tuple[int, int]]:
        """The runs of silent steps that are longer: first step, and the step after the last."""
        return [run for run in _runs(~self.sounds) if run[1] - run[0] > longer_than_s * _STEPS_PER_S]


class WithoutSilence:
    """A Reader (models.audio.blocks) of the same track without its long silences.

    The track is decoded once to find them. Of a track of over 20 minutes only that much is decoded, in 20 pieces that
    are spread over it, and what lies between the pieces is left out too.

    Attributes:
        sounding_s: how much sound was found, rests of up to 0.4 s included.
        frames: how long the track is without its silences.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.sample_rate = reader.sample_rate
        self.channels = reader.channels
        self.sounding_s = 0.0
        self._step = reader.sample_rate // _STEPS_PER_S
        self._kept = np.zeros(reader.frames // self._step, np.bool_)
        for start, steps in _pieces(len(self._kept)):
            levels = Levels(reader.blocks(start * self._step, steps * self._step), sample_rate=self.sample_rate)
            self._kept[start : start + len(levels.sounds)] = levels.kept()
            self.sounding_s += levels.sounding_s
        self._steps = np.flatnonzero(self._kept)
        self.frames = len(self._steps) * self._step

    @property
    def lost_s(self) -> float:
        """See Reader."""
        return self._reader.lost_s

    def position(self, frame: int) -> int:
        """Where a frame of this track lies in the track with its silences."""
        return int(self._steps[frame // self._step]) * self._step + frame % self._step

    def blocks(self, start: int, frames: int) -> Iterator[Float32]:
        """See Reader."""
        end = min(start + frames, self.frames)
        if start >= end:
            return
        first, last = self.position(start), self.position(end - 1) + 1
        steps = self._steps[start // self._step : (end - 1) // self._step + 1]
        for apart in np.split(steps, np.flatnonzero(np.diff(steps) > _SOUGHT_S * _STEPS_PER_S) + 1):
            position = max(first, int(apart[0]) * self._step)
            frames = min(last, (int(apart[-1]) + 1) * self._step) - position
            for block in self._reader.blocks(position, frames):
                yield block[self._kept[np.arange(position, position + len(block)) // self._step]]
                position += len(block)


def _pieces(steps: int) -> list[tuple[int, int]]:
    """Which parts of a track of so many steps are looked through: the first step and the length of each."""
    if steps <= _SCANNED_S * _STEPS_PER_S:
        return [(0, steps)]
    length, count = _PIECE_S * _STEPS_PER_S, _SCANNED_S // _PIECE_S
    return [((steps - length) * piece // (count - 1), length) for piece in range(count)]


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of true: the first place of each, and the place after its last."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)
    return [(int(start), int(end)) for start, end in edges]
