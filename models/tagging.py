"""What was heard in a track, without numpy: the main process of a worker reads it and loads none."""

from __future__ import annotations

from typing import Literal

import msgspec

from models.events import WindowFeatures

DIGITS = 6
"""Decimals of the probabilities in answers."""
_NORM_TOLERANCE = 1e-3
_MOST_S = 1e9


class Tagging(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What models.tagger.Tagger heard in a track. A pool process sends it as it is, as one of several tagged structs.

    Attributes:
        status: abstained where the genre head does not know, or does not know such music.
        genre: the best guess where tagged, else None.
        confidence: probability of the first of `genres`, 0 to 1.
        genres: every genre of the release with its probability, best first.
        genres_from: tags where the strongest tag contradicts the genre head; then `genres` are the kinds of music that
            tags name, each with the probability of its strongest tag.
        tags: the 50 tags of the release's first network with their mean over the patches, 0 to 1, best first.
        taggram: the tags of that network (in the order of models.musicnn.TAGS) for each patch of all windows, in
            time order, as models.contract.encode_taggram writes them; decode_taggram gives (patches, 50) float32.
        embedding: (dim,) float32 of unit norm, where the track is in the taste space of the release: its learned item
            vector where the user tower knows the track, else what the audio encoder hears; None without either.
        windows: what each musicnn network heard in each window, for the features topic.
        vectors: what each audio encoder heard in each window, for the features topic: float32, little-endian, by the
            encoder's hash (models.release.Release.encoder_hashes).
        duration_s: of the track.
        lost_s: how much audio was found damaged where the track was heard, and was skipped.
        timings_ms: time taken by decode, log_mel, network, encoder (where the release has audio encoders) and genre.

    Raises:
        ValueError: the embedding has not unit norm, or the duration is none.
    """

    status: Literal["tagged", "abstained"]
    genre: str | None
    confidence: float
    genres: tuple[tuple[str, float], ...]
    genres_from: Literal["tags"] | None = None
    tags: tuple[tuple[str, float], ...]
    taggram: bytes
    embedding: tuple[float, ...] | None = None
    windows: dict[str, tuple[WindowFeatures, ...]]
    vectors: dict[str, tuple[bytes, ...]] = {}
    duration_s: float
    lost_s: float
    timings_ms: dict[str, float]

    def __post_init__(self) -> None:
        # A pool process that a file has taken over may send anything, and users' positions are computed from this.
        if self.embedding is not None and not abs(sum(x * x for x in self.embedding) - 1.0) < _NORM_TOLERANCE:
            raise ValueError("an embedding has unit norm")
        if not 0.0 <= self.duration_s < _MOST_S:
            raise ValueError("a duration is a number of seconds")
