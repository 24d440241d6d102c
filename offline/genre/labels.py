"""Labelled taggrams in an npz file (X, Y, IDS) by track, what else is known of the tracks, and their artists."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from models.features import taggram_features
from models.musicnn import OUTPUTS

_TAGS = OUTPUTS["tags"]
_FORM = f"give an npz with X (patches, {_TAGS}) of 0 to 1, Y (patches,) class numbers and IDS (patches,) track ids"


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledTaggrams:
    """Tracks in the order of the file.

    Attributes:
        ids: of the tracks.
        taggrams: one (patches, 50) float32 array a track, 0 to 1.
        max_pools: one (patches, 753) float32 array a track; empty where the file has none.
        labels: (tracks,) class numbers.
        fingerprint: SHA-256 of the file.
    """

    ids: tuple[str, ...]
    taggrams: tuple[NDArray[np.float32], ...]
    max_pools: tuple[NDArray[np.float32], ...] = ()
    labels: NDArray[np.int64]
    fingerprint: str

    def features(self, *, patch_step: int = 1) -> list[dict[str, NDArray[np.float32]]]:
        """What musicnn hears in each track, taken as one window: features by their names (models.features).

        Args:
            patch_step: one patch in so many is heard.
        """
        heard = [taggram_features("msd", taggram[::patch_step]) for taggram in self.taggrams]
        for features, max_pool in zip(heard, self.max_pools, strict=bool(self.max_pools)):
            features["msd.max_pool"] = max_pool[::patch_step].mean(axis=0)
        return heard


def read_taggrams(path: Path, *, classes: int) -> LabelledTaggrams:
    """Read X, Y and IDS, a row per patch, and MAX_POOL where the file has it, and put them together by track.

    Args:
        path: the npz file.
        classes: Y is below this.

    Raises:
        SettingsError: the file is missing or of another form.
    """
    try:
        with path.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        with np.load(path, allow_pickle=False) as arrays:
            patches, labels, ids = arrays["X"], arrays["Y"], arrays["IDS"]
            max_pools = arrays.get("MAX_POOL")
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path} cannot be read as taggrams ({type(error).__name__}); {_FORM}") from error
    rows = len(ids) if ids.ndim else 0
    if rows == 0 or patches.shape != (rows, _TAGS) or labels.shape != (rows,) or ids.shape != (rows,):
        raise SettingsError(f"{path} has X {patches.shape}, Y {labels.shape} and IDS {ids.shape}; {_FORM}")
    if not np.issubdtype(patches.dtype, np.floating) or not (patches.min() >= 0.0 and patches.max() <= 1.0):
        raise SettingsError(f"X of {path} is not all floats from 0 to 1; {_FORM}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise SettingsError(f"Y of {path} is not all integers from 0 to {classes - 1}; {_FORM}")
    if max_pools is not None and (max_pools.shape != (rows, OUTPUTS["max_pool"]) or not np.isfinite(max_pools).all()):
        raise SettingsError(f"MAX_POOL of {path} is {max_pools.shape}; give (patches, 753) finite numbers, or none")
    tracks, of_track = _rows_by_track(ids.astype(str))
    first = np.array([labels[rows[0]] for rows in of_track], np.int64)
    for track, rows, label in zip(tracks, of_track, first, strict=True):
        if (labels[rows] != label).any():
            raise SettingsError(f"track {track} of {path} has patches of several classes in Y; give it one")
    return LabelledTaggrams(
        ids=tracks,
        taggrams=tuple(patches[rows].astype(np.float32) for rows in of_track),
        max_pools=() if max_pools is None else tuple(max_pools[rows].astype(np.float32) for rows in of_track),
        labels=first,
        fingerprint=fingerprint,
    )


def _rows_by_track(ids: NDArray[np.str_]) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """The ids of the tracks in the order in which they come first, and the rows of each."""
    names, first, of_row = np.unique(ids, return_index=True, return_inverse=True)
    by_name = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    order = np.argsort(first)
    return tuple(names[order].tolist()), [by_name[number] for number in order]


def read_embeddings(path: Path) -> dict[str, NDArray[np.float32]]:
    """The embedding (dimensions,) of each track that has one, by its id; a track without one has no entry.

    Args:
        path: an npz with IDS (tracks,) and EMBEDDING (tracks, dimensions).

    Raises:
        SettingsError: the file is of another form.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, embeddings = arrays["IDS"], arrays["EMBEDDING"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SettingsError(
            f"{path} cannot be read ({type(error).__name__}); give an npz with IDS and EMBEDDING"
        ) from error
    if ids.ndim != 1 or embeddings.ndim != 2 or len(ids) != len(embeddings) or not np.isfinite(embeddings).all():
        raise SettingsError(
            f"{path} has IDS {ids.shape} and EMBEDDING {embeddings.shape}; give (tracks,) and finite (tracks, columns)"
        )
    return dict(zip(ids.astype(str).tolist(), embeddings.astype(np.float32), strict=True))


def read_artists(path: Path, ids: tuple[str, ...]) -> NDArray[np.int64]:
    """A number for the artist of each track, for folds that no artist spans.

    Tracks whose artist is unknown count as of one artist per genre (the part of the name before its dot), and
    the artists of a joint recording ("A; B") as one.

    Args:
        path: CSV with the columns track (blues.00029) and artist.
        ids: of tracks (blues/blues.00029.au); folder and suffix are passed over.

    Raises:
        SettingsError: the file is missing or of another form, or does not name a track.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            artist_of = {row["track"]: row["artist"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeError, csv.Error) as error:
        raise SettingsError(f"{path} cannot be read ({error!r}); give a CSV with the columns track, artist") from error
    paths = [PurePosixPath(track) for track in ids]
    names = [path.name if path.name in artist_of else path.stem for path in paths]
    if missing := [name for name in names if name not in artist_of]:
        raise SettingsError(f"{path} does not name the artist of {missing[0]} ({len(missing)} missing); add it")
    credited = [(artist_of[name] or f"unknown {name.partition('.')[0]}").split(";") for name in names]
    return joined([[artist.strip() for artist in artists] for artists in credited])


def joined(credited: list[list[str]]) -> NDArray[np.int64]:
    """Numbers that are equal for tracks that share an artist, directly or through others."""
    parent = {artist: artist for artists in credited for artist in artists}

    def root(artist: str) -> str:
        while parent[artist] != artist:
            artist = parent[artist]
        return artist

    for first, *others in credited:
        for other in others:
            parent[root(other)] = root(first)
    return np.unique([root(artists[0]) for artists in credited], return_inverse=True)[1].astype(np.int64)
