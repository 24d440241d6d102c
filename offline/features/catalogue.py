"""Which tracks there are: a table or a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fsspec
import polars as pl

from models.audio.windows import SUFFIXES
from models.errors import SettingsError
from offline.features.settings import Features
from offline.interactions.log import checked_ids

_PLACES = ("uri", "path", "audio")
"""Columns that may say where a track's file is; the first that there is does."""

SCHEMA = {"track_id": pl.String, "uri": pl.String, "artist_id": pl.String, "genre": pl.String}


def read_catalogue(settings: Features) -> pl.DataFrame:
    """The tracks of a catalogue, with the columns of SCHEMA: absolute uris, nulls where an artist or genre is unknown.

    The track_id of a file in a folder is its path below the folder: `blues/blues.00000.wav`.

    Raises:
        SettingsError: it cannot be read, has no tracks, lacks a column, or has an id twice.
    """
    where = settings.catalogue
    tracks = _of_folder(settings) if Path(where).is_dir() else _of_table(settings)
    if tracks.is_empty():
        raise SettingsError(f"{where} has no tracks; name a table of tracks, or a folder of audio files")
    checked_ids(tracks["track_id"], where)
    if tracks["uri"].has_nulls():
        missing = tracks.filter(pl.col("uri").is_null())["track_id"][0]
        raise SettingsError(f"{where} does not say where the audio of {missing} is; give its uri, or leave it out")
    if (twice := tracks["track_id"].is_duplicated()).any():
        raise SettingsError(f"{where} has the track {tracks.filter(twice)['track_id'][0]} twice; leave one out")
    return tracks


def _of_folder(settings: Features) -> pl.DataFrame:
    root = Path(settings.catalogue).resolve()
    paths = sorted(_audio_files(root))
    genres = [PurePosixPath(path).parts[0] if settings.genre_folders and "/" in path else None for path in paths]
    return pl.DataFrame(
        {"track_id": paths, "uri": [f"{root}/{path}" for path in paths], "artist_id": None, "genre": genres},
        schema=SCHEMA,
    )


def _audio_files(root: Path) -> Iterator[str]:
    """The paths below a folder of the files that are named as audio; what begins with a dot is left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name).relative_to(root).as_posix()


def _of_table(settings: Features) -> pl.DataFrame:
    where = settings.catalogue
    try:
        with fsspec.open(where) as file:
            table = pl.read_csv(file, infer_schema=False) if where.lower().endswith(".csv") else pl.read_parquet(file)
    except Exception as error:  # every fsspec package raises errors of its own, and so does a damaged table
        why = str(error).partition("\n")[0]
        raise SettingsError(f"{where} cannot be read as a catalogue ({why}); name a Parquet or CSV file") from error
    places = [name for name in _PLACES if name in table.columns]
    if "track_id" not in table.columns or not places:
        raise SettingsError(
            f"{where} has the columns {', '.join(table.columns)}; it needs track_id, and uri, path or audio"
        )
    if settings.genre_column not in (*table.columns, "genre"):
        raise SettingsError(f"{where} has no column {settings.genre_column}; name one that has the genre")
    uris = table[places[0]].cast(pl.String)
    return pl.DataFrame(
        {
            "track_id": table["track_id"].cast(pl.String),
            "uri": [uri and _absolute(uri, where) for uri in uris],
            "artist_id": _text(table, "artist_id"),
            "genre": _text(table, settings.genre_column),
        },
        schema=SCHEMA,
    )


def _text(table: pl.DataFrame, name: str) -> pl.Series:
    """A column as text, null where there is none or it is empty; the parts of a list stand one after another."""
    if name not in table.columns:
        return pl.repeat(None, len(table), dtype=pl.String, eager=True)
    column = table[name]
    if isinstance(column.dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.join("; ")
    return column.cast(pl.String).replace("", None)


def _absolute(uri: str, catalogue: str) -> str:
    """A place that a catalogue gives; a relative one is meant from where the catalogue lies."""
    if "://" in uri:
        return uri
    parent = catalogue.rpartition("/")[0] if "://" in catalogue else str(Path(catalogue).resolve().parent)
    return str(PurePosixPath(uri)) if uri.startswith("/") else f"{parent}/{PurePosixPath(uri)}"
