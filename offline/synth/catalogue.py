"""The tracks of a synthetic platform, as points in the space that tracks and tastes share.

The first dimensions of a point are the track's style, then come its brightness (both can be heard) and its artist's
scene (which shows only in who listens).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from offline.synth.settings import CHAIN, SHORTEST_TRACK_S, SynthPlatform

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SCENE = 7
"""Dimensions of an artist's scene."""
BRIGHTNESS_WEIGHT = 0.6
"""Length of the brightness beside a style of length 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """The tracks: arrays of (tracks,) values.

    Attributes:
        style: numbers, places in CHAIN.
        artist: numbers.
        brightness: -1 to 1.
        latent: (tracks, dimensions), of unit norm.
        popularity: sums to 1.
        released_day: counted from the start; below 0 before it.
        duration_ms: length of the track.
        seed: of the audio.
    """

    style: Int64
    artist: Int64
    brightness: Float64
    latent: Float32
    popularity: Float64
    released_day: Int64
    duration_ms: Int64
    seed: Int64

    def titles(self) -> dict[str, str]:
        """A title for each track, such as Metal no. 12, by its id."""
        names = [f"{CHAIN[style].title()} no. {number}" for number, style in enumerate(self.style.tolist(), start=1)]
        return dict(zip(ids("t", len(names)), names, strict=True))


def ids(letter: str, count: int) -> list[str]:
    """The ids of tracks (t), artists (a) or users (u) by their numbers, such as t000012."""
    return [f"{letter}{number:06d}" for number in range(count)]


def draw_catalogue(settings: SynthPlatform, rng: Generator) -> Catalogue:
    """Tracks of artists who each have a style, a brightness and a scene."""
    tracks, artists = settings.tracks, settings.artist_count
    scene, brightness = rng.normal(0.0, 0.2, (artists, SCENE)), rng.uniform(-1.0, 1.0, artists)
    artist = np.concatenate([np.arange(artists), rng.integers(artists, size=tracks - artists)])
    style = artist % len(CHAIN)
    brightness = np.clip(brightness[artist] + rng.normal(0.0, 0.15, tracks), -1.0, 1.0)
    latent = np.hstack([style_centres()[style], BRIGHTNESS_WEIGHT * brightness[:, None], scene[artist]])
    popularity = (1.0 + rng.permutation(tracks)) ** -settings.zipf
    new = rng.random(tracks) < settings.new_track_share
    new[: len(CHAIN)] = False  # every style has a track from the start
    later, before = rng.integers(1, max(2, settings.days), tracks), rng.integers(-1000, 1, tracks)
    return Catalogue(
        style=style,
        artist=artist,
        brightness=brightness,
        latent=unit(latent + rng.normal(0.0, 0.06, latent.shape)).astype(np.float32),
        popularity=popularity / popularity.sum(),
        released_day=np.where(new, later, before),
        duration_ms=rng.integers(1000 * SHORTEST_TRACK_S, 300_001, tracks),
        seed=rng.integers(2**62, size=tracks),
    )


def style_centres() -> Float64:
    """(styles, styles): a unit vector for each style; neighbours in CHAIN have a cosine of about 0.7, others little."""
    styles = len(CHAIN)
    return unit(np.eye(styles) + 0.5 * (np.eye(styles, k=1) + np.eye(styles, k=-1)))


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """The vectors (..., dimensions), each scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
