"""What an encoder hears of a track: pieces of its windows in training, and all of them to place it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from models.audio_encoder import filled
from offline.audio_encoder.network import AudioNetwork
from offline.features.store import FeatureStore

_WINDOWS_AT_ONCE = 16
_SMALLEST_NORM = 1e-6


class Sounds:
    """The log-mels of the tracks of a log.

    Args:
        store: where they lie.
        track_ids: (tracks,) of the log; a place in it is what the methods call a track.
        sound_of: (tracks,) the track whose sound each one has; its own, but in a control.
    """

    def __init__(self, store: FeatureStore, track_ids: pl.Series, sound_of: NDArray[np.integer]) -> None:
        self._store, self._ids, self._sound_of = store, track_ids, sound_of

    def exchanged(self, sound_of: NDArray[np.integer]) -> Sounds:
        """The same tracks with sounds of others."""
        return Sounds(self._store, self._ids, sound_of)

    def crops(self, tracks: Sequence[int], *, frames: int, rng: np.random.Generator) -> NDArray[np.float16]:
        """(n, frames, mels): of each track a piece at a random place of a random window."""
        return np.stack([self._crop(track, frames, rng) for track in tracks])

    def windows(self, track: int, *, frames: int) -> list[NDArray[np.float16]]:
        """(frames, mels) each: the windows of a track."""
        name = self._name(track)
        count = len(self._store[name].starts_ms)
        return [filled(self._store.log_mel(name, window), frames) for window in range(count)]

    def _crop(self, track: int, frames: int, rng: np.random.Generator) -> NDArray[np.float16]:
        name = self._name(track)
        heard = self._store.log_mel(name, int(rng.integers(len(self._store[name].starts_ms))))
        return filled(heard[int(rng.integers(max(1, len(heard) - frames + 1))) :], frames)

    def _name(self, track: int) -> str:
        return self._ids[int(self._sound_of[track])]


def place_tracks(
    network: AudioNetwork, sounds: Sounds, tracks: Sequence[int], *, frames: int, device: torch.device
) -> NDArray[np.float32]:
    """(n, dim) of unit norm: where an encoder of this network places tracks, as AudioEncoder.embedding does.

    Args:
        network: on the device; it is left in eval mode.
        sounds: of the tracks.
        tracks: places in the log's tracks.
        frames: of a window.
        device: that hears.
    """
    network.eval()
    windows = ((number, heard) for number, one in enumerate(tracks) for heard in sounds.windows(one, frames=frames))
    sums = np.zeros((len(tracks), network.leave.out_features), np.float32)
    with torch.inference_mode():
        while some := list(islice(windows, _WINDOWS_AT_ONCE)):
            numbers, heard = zip(*some, strict=True)
            places = network(torch.from_numpy(np.stack(heard)).to(device).float())
            np.add.at(sums, list(numbers), places.cpu().numpy())
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), _SMALLEST_NORM)
