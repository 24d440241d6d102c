"""What networks hear in labelled tracks, as features of a track: in their files, or in what a feature store has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import numpy as np
from numpy.typing import NDArray

from models.artists import ARTIST_EMBEDDING, ArtistTable
from models.audio_encoder import AudioEncoder
from models.errors import SettingsError, TastewaveError
from models.release import Release
from models.tagger import TrackHearing
from offline.features.store import FeatureStore
from offline.genre.catalogue import LabelledFile
from offline.genre.labels import joined
from offline.progress import progress_bar

MAX_FILE_BYTES = 2**29
Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeardTracks:
    """Tracks with what is known of each: what offline.genre.train takes.

    Attributes:
        files: those that could be heard.
        features: of each track (models.features, and others such as ARTIST_EMBEDDING): means over its windows.
        content: of each track a hash of its file.
        skipped: what could not be heard, and why.
    """

    files: tuple[LabelledFile, ...]
    features: tuple[dict[str, Float32], ...]
    content: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    def artists(self) -> NDArray[np.int64]:
        """(tracks,) numbers that no fold divides: equal for tracks of an artist, and for equal files.

        A track whose artist is not known stands for itself.
        """
        known = ([f"artist {file.artist_id}"] if file.artist_id else [] for file in self.files)
        return joined([[f"file {content}", *artist] for content, artist in zip(self.content, known, strict=True)])

    def with_artists(self, table: ArtistTable) -> HeardTracks:
        """The same, with the vectors of those artists that the table knows."""
        vectors = [table.vector(file.artist_id) if file.artist_id else None for file in self.files]
        features = tuple(
            known if vector is None else known | {ARTIST_EMBEDDING: vector}
            for known, vector in zip(self.features, vectors, strict=True)
        )
        return replace(self, features=features)


def listening(release: Release, networks: Sequence[str]) -> Release:
    """The release as one whose workers run these networks (msd, mtt)."""
    configuration = msgspec.structs.replace(release.configuration, run=tuple(networks))
    return Release(msgspec.structs.replace(release.manifest, configuration=configuration), release.folder)


def hear(files: Sequence[LabelledFile], release: Release, *, encoders: Mapping[str, AudioEncoder]) -> HeardTracks:
    """Hear tracks as the workers of a release do. A file that cannot be heard is skipped, and told.

    Args:
        files: of the tracks.
        release: that hears them.
        encoders: audio encoders that hear them as well, by the names of their features.

    Raises:
        SettingsError: none can be heard.
    """
    hearing = TrackHearing(release, encoders=encoders)
    heard, features, content, skipped = list[LabelledFile](), list[dict[str, Float32]](), list[str](), []
    with progress_bar() as bar:
        task = bar.add_task("Hearing", total=len(files))
        for file in files:
            try:
                data = _read(file.where)
                windows = hearing(data).windows()
            except (TastewaveError, OSError) as error:
                skipped.append((file.where, str(error)))
            else:
                heard.append(file)
                content.append(hashlib.sha256(data).hexdigest())
                features.append(_mean(windows))
            bar.advance(task)
    if not heard:
        raise SettingsError(f"none of {len(files)} files can be heard, such as {skipped[0][0]}: {skipped[0][1]}")
    return HeardTracks(files=tuple(heard), features=tuple(features), content=tuple(content), skipped=tuple(skipped))


def heard_in(
    store: FeatureStore, files: Sequence[LabelledFile], *, encoders: Mapping[str, AudioEncoder]
) -> HeardTracks:
    """Tracks of a feature store as `hear` hears them in their audio, but for the digits that float16 loses.

    Args:
        store: of the tracks.
        files: the tracks by their ids (offline.genre.catalogue.labelled_tracks).
        encoders: audio encoders that hear the log-mels of the store, by the names of their features.

    Raises:
        SettingsError: an encoder hears something else.
    """
    for encoder in encoders.values():
        store.check_heard_by(encoder.manifest)
    features = list[dict[str, Float32]]()
    with progress_bar() as bar:
        for file in bar.track(files, description="Reading features"):
            vectors = {name: store.vectors(file.where, encoder) for name, encoder in encoders.items()}
            embeddings = {name: of_windows.mean(axis=0) for name, of_windows in vectors.items()}
            features.append(_mean(store.features(file.where)) | embeddings)
    return HeardTracks(
        files=tuple(files),
        features=tuple(features),
        content=tuple(store[file.where].content for file in files),
        skipped=(),
    )


def _mean(windows: Sequence[Mapping[str, Float32]]) -> dict[str, Float32]:
    return {name: np.mean([window[name] for window in windows], axis=0) for name in windows[0]}


def _read(where: str) -> bytes:
    at_url: Any = fsspec.open
    try:
        with at_url(where, "rb") if "://" in where else Path(where).open("rb") as file:
            data: bytes = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError, ImportError) as error:  # a scheme that nothing is installed for, among others
        raise SettingsError(f"it cannot be read ({error}); check its path") from error
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"the file has over {MAX_FILE_BYTES} bytes; cut it")
    return data
