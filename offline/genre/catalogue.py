"""Labelled tracks: a folder with a folder of files for each genre, a catalogue, or the features of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from models.errors import SettingsError
from models.label_rule import parent_of
from offline.features.store import FeatureStore, is_store, open_store
from offline.genre.machine import Labels

_FORM = (
    "give a folder of folders, one for each genre, or a CSV or Parquet file with the columns path (or uri, or audio), "
    "genre and artist_id, or what `features` wrote of one"
)


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """A track whose genre is known.

    Attributes:
        where: path or fsspec URL of its audio; its track_id in a feature store.
        labels: its genres, at least one.
        artist_id: None where it is not known.
    """

    where: str
    labels: tuple[str, ...]
    artist_id: str | None


def read_source(
    source: Path, *, genre_column: str = "genre", corrections: Mapping[str, str] | None = None
) -> tuple[list[LabelledFile], int]:
    """The tracks of a source, and how many more have no genre.

        files, unlabelled = read_source(Path("genres"))         # genres/jazz/so-what.flac
        files, unlabelled = read_source(Path("catalogue.csv"))  # path,genre,artist_id
        files, unlabelled = read_source(Path("features"))       # what `tastewave-offline features` wrote

    A track of a catalogue may have several genres: a list in Parquet, `Rock; Electronic---House` in CSV. Paths are
    taken from the folder of the catalogue.

    Args:
        source: a folder of folders, a catalogue, or a feature store.
        genre_column: column of a catalogue that has the genre; a store has that which `features` was told.
        corrections: the genre that editors gave tracks, by track_id; it counts instead of that of the source.

    Raises:
        SettingsError: the source is missing, of another form, or holds no track; there are corrections, and it does not
            name its tracks.
        ReleaseError: the store cannot be read.
    """
    if is_store(source):
        files = labelled_tracks(open_store(source), corrections or {})
    elif not source.is_dir():
        files = _of_catalogue(source, genre_column, corrections or {})
    elif not corrections:
        files = _of_folder(source)
    else:
        raise SettingsError(f"{source} is a folder, and corrections are of track_ids; give a catalogue that has them")
    labelled = [file for file in files if file.labels]
    if not labelled:
        raise SettingsError(f"{source} holds no track with a genre; {_FORM}")
    return labelled, len(files) - len(labelled)


def labelled_tracks(store: FeatureStore, corrections: Mapping[str, str] = MappingProxyType({})) -> list[LabelledFile]:
    """The tracks of a feature store in its order, those without a genre as well; corrections as of read_source."""
    return [
        LabelledFile(
            where=track.track_id,
            labels=_labels(track.track_id, track.genre, corrections),
            artist_id=track.artist_id,
        )
        for track in store
    ]


def _of_folder(folder: Path) -> list[LabelledFile]:
    return [
        LabelledFile(where=str(path), labels=(genre.name,), artist_id=None)
        for genre in sorted(folder.iterdir())
        if genre.is_dir() and not genre.name.startswith(".")
        for path in sorted(genre.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]


def _of_catalogue(path: Path, genre_column: str, corrections: Mapping[str, str]) -> list[LabelledFile]:
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SettingsError(f"{path} cannot be read ({type(error).__name__}); {_FORM}") from error
    place = next((name for name in ("path", "uri", "audio") if name in frame.columns), None)
    if place is None or genre_column not in frame.columns:
        raise SettingsError(f"{path} has the columns {', '.join(frame.columns)}; {_FORM}")
    if frame[place].null_count():
        raise SettingsError(f"{path} has rows without a {place}; drop them")
    if corrections and "track_id" not in frame.columns:
        raise SettingsError(f"{path} has no column track_id, and corrections are of track_ids; add it")
    ids = frame["track_id"].cast(pl.String) if "track_id" in frame.columns else [None] * len(frame)
    artists = frame["artist_id"].cast(pl.String) if "artist_id" in frame.columns else [None] * len(frame)
    return [
        LabelledFile(
            where=_from(path.parent, str(where)),
            labels=_labels(track_id, genre, corrections),
            artist_id=artist or None,
        )
        for where, genre, artist, track_id in zip(
            frame[place], frame[genre_column].to_list(), artists, ids, strict=True
        )
    ]


def _from(folder: Path, where: str) -> str:
    return where if "://" in where else str(folder / where)


def _labels(track_id: str | None, genre: str | Iterable[str] | None, corrections: Mapping[str, str]) -> tuple[str, ...]:
    """The genres of a track: what editors say, or what a catalogue does: `Rock; Pop`, or a list."""
    if corrected := track_id and corrections.get(track_id):
        return (corrected,)
    names = genre.split(";") if isinstance(genre, str) else genre or ()
    return tuple(dict.fromkeys(name.strip() for name in names if name and name.strip()))


def choose_classes(files: Sequence[LabelledFile], wanted: Sequence[str]) -> tuple[str, ...]:
    """The classes of a head, in the order of their names: those that are wanted, or all, and what these are within.

    Raises:
        SettingsError: no track has one that is wanted.
    """
    found = {name for file in files for label in file.labels for name in _up(label)}
    for name in wanted:
        if name not in found:
            near = get_close_matches(name, found, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(found))}"
            raise SettingsError(f"no track has the genre {name!r}; {advice}")
    return tuple(sorted({up for name in wanted for up in _up(name)} or found))


def labels_among(file: LabelledFile, classes: Iterable[str]) -> set[str]:
    """The labels of a track, and what these are within, that are among some classes."""
    return {up for label in file.labels for up in _up(label)} & set(classes)


def label_array(files: Sequence[LabelledFile], classes: Sequence[str]) -> Labels:
    """The labels of the tracks as offline.genre.machine takes them: (tracks,) where each has one genre, else several.

    Args:
        files: each has a label among the classes.
        classes: as choose_classes gives them.
    """
    known = [labels_among(file, classes) for file in files]
    if all(len(labels) == 1 for labels in known) and not any(parent_of(name) in classes for name in classes):
        return np.array([classes.index(name) for labels in known for name in labels], np.int64)
    return np.array([[name in labels for name in classes] for labels in known])


def _up(label: str | None) -> list[str]:
    """A label, and all that it is within."""
    names = list[str]()
    while label:
        names.append(label)
        label = parent_of(label)
    return names
