"""Labelled taggrams in an npz file (X, Y, IDS), by track, and the artist of each."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from models.musicnn import OUTPUTS

_TAGS = OUTPUTS["tags"]
_FORM = f"give an npz with X (patches, {_TAGS}) of 0 to 1, Y (patches,) class numbers and IDS (patches,) track ids"


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledTaggrams:
    """Tracks in the order of the file.

    Attributes:
        ids: of the tracks.
        taggrams: one (patches, 50) float32 array a track, 0 to 1.
        labels: (tracks,) class numbers.
        fingerprint: SHA-256 of the file.
    """

    ids: tuple[str, ...]
    taggrams: tuple[NDArray[np.float32], ...]
    labels: NDArray[np.int64]
    fingerprint: str


def read_taggrams(path: Path, *, classes: int) -> LabelledTaggrams:
    """Read X, Y and IDS, a row per patch, and put them together by track.

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
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path} cannot be read as taggrams ({type(error).__name__}); {_FORM}") from error
    rows = len(ids) if ids.ndim else 0
    if rows == 0 or patches.shape != (rows, _TAGS) or labels.shape != (rows,) or ids.shape != (rows,):
        raise SettingsError(f"{path} has X {patches.shape}, Y {labels.shape} and IDS {ids.shape}; {_FORM}")
    if not np.issubdtype(patches.dtype, np.floating) or not (patches.min() >= 0.0 and patches.max() <= 1.0):
        raise SettingsError(f"X of {path} is not all floats from 0 to 1; {_FORM}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise SettingsError(f"Y of {path} is not all integers from 0 to {classes - 1}; {_FORM}")
    return _by_track(patches.astype(np.float32), labels, ids.astype(str), fingerprint=fingerprint, path=path)


def _by_track(
    patches: NDArray[np.float32], labels: NDArray[np.integer], ids: NDArray[np.str_], *, fingerprint: str, path: Path
) -> LabelledTaggrams:
    tracks = tuple(dict.fromkeys(ids.tolist()))
    rows = [np.flatnonzero(ids == track) for track in tracks]
    for track, of_track in zip(tracks, rows, strict=True):
        if len(set(labels[of_track].tolist())) != 1:
            raise SettingsError(f"track {track} of {path} has patches of several classes in Y; give it one")
    return LabelledTaggrams(
        ids=tracks,
        taggrams=tuple(patches[of_track] for of_track in rows),
        labels=np.array([labels[of_track[0]] for of_track in rows], np.int64),
        fingerprint=fingerprint,
    )


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
    return _joined([[artist.strip() for artist in artists] for artists in credited])


def _joined(credited: list[list[str]]) -> NDArray[np.int64]:
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
