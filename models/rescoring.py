"""A release over the features of tracks, without their audio: what its workers would answer to the same uploads.

    rescorer = Rescorer(load_release("releases/2026-12"), top_k=5)
    answers = rescorer(tracks, tagged_at=now_ms)  # tracks: TrackFeatures of the topic tastewave.tracks.features

Features on the topic are float16, so that numbers differ from those of a worker by less than 0.001, and a track on the
very edge of an abstention may fall to its other side. Thousands of tracks are scored together: one at a time would take
twenty times as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.artists import ARTIST_EMBEDDING
from models.audio_encoder import SMALLEST_NORM
from models.events import TrackFeatures, TrackTagged, WindowFeatures
from models.features import EMBEDDING, feature_width
from models.genre import GenreDecision
from models.musicnn import OUTPUTS, TAGS
from models.release import Release
from models.tag_kinds import Ranked, best_first
from models.tagging import DIGITS

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_TRACKS_AT_ONCE = 256  # their distances from the training tracks stay in the cache of a core
WHOLE = "features that are whole"
"""What damaged features lack."""
_SIZES = (2 * OUTPUTS["max_pool"], 2 * OUTPUTS["tags"], 2 * OUTPUTS["tags"])


class Lacking(NamedTuple):
    """A track whose features do not tell what the release would answer: its audio has to be heard.

    Attributes:
        track_id: of the track.
        what: the features lack, such as `network mtt 0123456789ab`.
    """

    track_id: str
    what: str


class Rescorer:
    """The genre head and the taste space of a release, ready to answer from features; one thread.

    It loads no network: what they would hear is in the features.

    Args:
        release: that answers.
        top_k: genres and tags kept in an answer.

    Raises:
        ReleaseError: its parts do not fit together.
    """

    def __init__(self, release: Release, *, top_k: int) -> None:
        configuration, hashes = release.configuration, release.encoder_hashes_by_feature
        self._release_id = release.release_id
        self._hearing = release.hearing
        self._top_k = top_k
        self._head = release.genre_head()
        self._artists = release.artist_table()
        self._items = release.user_tower().items if configuration.user_tower is not msgspec.UNSET else None
        self._encoder = hashes.get(EMBEDDING)
        self._tags_network = configuration.run[0]
        heads = [head for head in (self._head, self._head.plain) if head]
        heard = {name for head in heads for name in head.inputs} | {f"{self._tags_network}.taggram.mean"}
        heard |= {head.kinds.feature for head in heads if head.kinds}
        self._of_networks = sorted(name for name in heard if feature_width(name))
        self._of_encoders = {name: hash_ for name, hash_ in hashes.items() if name in heard}
        models = {name.partition(".")[0] for name in self._of_networks}
        self._networks = {model: hash_ for model, hash_ in release.network_hashes.items() if model in models}
        self._dims = {hashes[name]: width for name, width in release.embedding_widths().items() if name in hashes}

    def __call__(self, tracks: Sequence[TrackFeatures], *, tagged_at: int) -> list[TrackTagged | Lacking]:
        """Answer the uploads of tracks, each as a worker of the release would.

        Args:
            tracks: with the event_time and event_id of their uploads.
            tagged_at: the time of the answers, ms.

        Returns:
            For each track its answer, or what its features lack.
        """
        parts = [tracks[at : at + _TRACKS_AT_ONCE] for at in range(0, len(tracks), _TRACKS_AT_ONCE)]
        return [answer for part in parts for answer in self._answers(part, tagged_at)]

    def _answers(self, tracks: Sequence[TrackFeatures], tagged_at: int) -> list[TrackTagged | Lacking]:
        learned = self._learned(tracks)
        lacks = [self._lacks(track, is_learned=row >= 0) for track, row in zip(tracks, learned.tolist(), strict=True)]
        whole = [track for track, what in zip(tracks, lacks, strict=True) if what is None]
        answers = iter(self._answers_of_whole(whole, tagged_at))
        return [
            Lacking(track.track_id, what) if what else next(answers) for track, what in zip(tracks, lacks, strict=True)
        ]

    def _lacks(self, track: TrackFeatures, *, is_learned: bool) -> str | None:
        """What the features of a track lack; None where nothing."""
        if track.front_end != self._hearing:
            return f"front end {self._hearing}"
        if track.event_time is None or track.event_id is None:
            return "the upload that they are of"
        for model, hash_ in self._networks.items():
            if track.networks.get(model) != hash_:
                return f"network {model} {hash_}"
        encoders = set(self._of_encoders.values())
        if self._encoder and not is_learned:
            encoders.add(self._encoder)
        if missing := sorted(encoders.difference(track.vectors)):
            return f"audio encoder {missing[0]}"
        windows = len(track.windows.get(self._tags_network, ()))
        of_models = [track.windows.get(model, ()) for model in self._networks]
        of_encoders = [(track.vectors[hash_], 4 * self._dims[hash_]) for hash_ in encoders]
        whole = windows > 0 and all(len(rows) == windows and all(map(_is_whole, rows)) for rows in of_models)
        whole = whole and all(list(map(len, vectors)) == [size] * windows for vectors, size in of_encoders)
        return None if whole else WHOLE

    def _answers_of_whole(self, tracks: Sequence[TrackFeatures], tagged_at: int) -> list[TrackTagged | Lacking]:
        if not tracks:
            return []
        blocks = {name: _of_network(tracks, *name.split(".", 1)) for name in self._of_networks}
        blocks |= {name: _of_encoder(tracks, hash_) for name, hash_ in self._of_encoders.items()}
        windows = np.array([len(track.windows[self._tags_network]) for track in tracks])
        places = self._places(tracks)
        finite = np.all([np.isfinite(block).all(axis=1) for block in blocks.values()], axis=0)
        fine = np.logical_and.reduceat(finite, np.cumsum(windows) - windows)
        fine &= [place is None or all(map(math.isfinite, place)) for place in places]
        if not fine.all():
            are_fine: list[bool] = fine.tolist()
            pairs = list(zip(tracks, are_fine, strict=True))
            rest = iter(self._answers_of_whole([track for track, is_fine in pairs if is_fine], tagged_at))
            return [next(rest) if is_fine else Lacking(track.track_id, WHOLE) for track, is_fine in pairs]
        tags = self._tags(tracks, blocks[f"{self._tags_network}.taggram.mean"], windows)
        decisions = self._decisions(tracks, blocks, windows)
        return [
            TrackTagged(
                track_id=track.track_id,
                release=self._release_id,
                status="abstained" if decision.genre is None else "tagged",
                event_time=track.event_time or 0,
                event_id=track.event_id or "",
                tagged_at=tagged_at,
                genre=decision.genre,
                confidence=round(decision.confidence, DIGITS),
                genres=tuple([(genre, round(value, DIGITS)) for genre, value in decision.genres[: self._top_k]]),
                genres_from="tags" if decision.abstained_because == "tags" else None,
                tags=of_track,
                embedding=place,
                content_hash=track.content_hash,
                duration_ms=track.duration_ms,
                title=track.title,
                artist_id=track.artist_id,
            )
            for track, decision, of_track, place in zip(tracks, decisions, tags, places, strict=True)
        ]

    def _decisions(
        self, tracks: Sequence[TrackFeatures], blocks: Mapping[str, Float32], windows: Int64
    ) -> list[GenreDecision]:
        """What the head decides where it has all that it hears, and the plain head elsewhere."""
        blocks, hears = dict(blocks), np.ones(len(tracks), bool)
        if self._artists and ARTIST_EMBEDDING in self._head.inputs:
            rows = self._artists.rows([track.artist_id or "" for track in tracks])
            hears = rows >= 0
            blocks[ARTIST_EMBEDDING] = np.repeat(self._artists.vectors[rows], windows, axis=0)
        if not blocks.keys() >= set(self._head.inputs):
            hears[:] = False
        decisions: dict[int, GenreDecision] = {}
        for head, chosen in ((self._head, hears), (self._head.plain, ~hears)):
            if head and chosen.any():
                of_windows = np.repeat(chosen, windows)
                features = np.concatenate([blocks[name][of_windows] for name in head.inputs], axis=1)
                tags = blocks[head.kinds.feature][of_windows] if head.kinds else None
                decided = head.decide_all(features, tags, windows=windows[chosen])
                decisions |= dict(zip(np.flatnonzero(chosen).tolist(), decided, strict=True))
        return [decisions[at] for at in range(len(tracks))]

    def _tags(self, tracks: Sequence[TrackFeatures], means: Float32, windows: Int64) -> list[Ranked]:
        """The best tags of each track: the mean over its patches, however many each window has."""
        patches = np.array([one.patches or 1 for track in tracks for one in track.windows[self._tags_network]])
        starts = np.cumsum(windows) - windows
        sums = np.add.reduceat(means * patches[:, None].astype(np.float64), starts, axis=0)
        of_tracks = sums / np.add.reduceat(patches, starts)[:, None]
        return best_first(TAGS[self._tags_network], of_tracks.round(DIGITS), most=self._top_k)

    def _learned(self, tracks: Sequence[TrackFeatures]) -> Int64:
        """(tracks,) the rows of the tower's item table; -1 for a track that the tower does not know."""
        return self._items.rows([track.track_id for track in tracks]) if self._items else np.full(len(tracks), -1)

    def _places(self, tracks: Sequence[TrackFeatures]) -> list[tuple[float, ...] | None]:
        """Where each track is in taste space; not finite where its vectors point nowhere."""
        learned = self._learned(tracks)
        places: list[tuple[float, ...] | None] = [None] * len(tracks)
        if self._items:
            for at in np.flatnonzero(learned >= 0).tolist():
                places[at] = tuple(self._items.vectors[learned[at]].tolist())
        if self._encoder and (heard := np.flatnonzero(learned < 0).tolist()):
            chosen = [tracks[at] for at in heard]
            windows = np.array([len(track.vectors[self._encoder]) for track in chosen])
            vectors = _of_encoder(chosen, self._encoder)
            sums = np.add.reduceat(vectors, np.cumsum(windows) - windows, axis=0) / windows[:, None].astype(np.float32)
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            units: list[list[float]] = (sums / np.where(norms > SMALLEST_NORM, norms, np.nan)).tolist()
            for at, unit in zip(heard, units, strict=True):
                places[at] = tuple(unit)
        return places


def _is_whole(window: WindowFeatures) -> bool:
    sizes = (len(window.max_pool), len(window.taggram_mean), len(window.taggram_spread))
    return sizes == _SIZES and window.patches >= 0


def _of_network(tracks: Sequence[TrackFeatures], model: str, what: str) -> Float32:
    """(windows, width) a feature of a musicnn network, the windows of one track after those of the one before."""
    field = what.replace(".", "_")
    rows = [getattr(window, field) for track in tracks for window in track.windows[model]]
    return np.frombuffer(b"".join(rows), "<f2").astype(np.float32).reshape(len(rows), -1)


def _of_encoder(tracks: Sequence[TrackFeatures], encoder: str) -> Float32:
    """(windows, dim) the vectors of an audio encoder of this hash, in the same order."""
    rows = [vector for track in tracks for vector in track.vectors[encoder]]
    return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1)
