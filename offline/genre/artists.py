"""The job `embed-artists`: where artists stand by their listeners, from a log of listens.

Rows of the matrix are users, columns artists, values log(1 + listens), divided by the roots of the sums of their row
and column so that neither a busy user nor a famous artist counts by size. The right singular vectors of such a matrix
put artists with the same listeners close together (Dhillon, Co-clustering Documents and Words Using Bipartite Spectral
Graph Partitioning, KDD 2001). The vector of an artist is its row of them, of unit norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from models.artists import ARTIST_IDS, ARTIST_VECTORS, ARTISTS_MANIFEST, ArtistsManifest, ArtistTable, load_artist_table
from models.errors import SettingsError
from models.history import IS_USABLE
from models.sealed_folder import describe_files
from models.user_tower import encode_ids
from offline.files import check_replaceable, new_folder, write_json, writing
from offline.genre.settings import EmbedArtists
from offline.interactions.log import InteractionLog, checked_ids, read_log

Float32 = NDArray[np.float32]
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The table that was written, and how many artists of the catalogue are not in it."""

    table: ArtistTable
    without: int

    def lines(self) -> list[str]:
        """How many artists have a vector, and where the table is."""
        return [
            f"{len(self.table)} artists with a vector, {self.without} without: too few listeners in the log",
            f"table of artists in {self.table.folder}",
        ]


def run(settings: EmbedArtists) -> Outcome:
    """Read the log and write the table.

    Raises:
        SettingsError: the log or the catalogue cannot be used, there are too few users or artists for the dimensions,
            or `out` is a folder of something else.
    """
    out = Path(settings.out)
    check_replaceable(out, ARTISTS_MANIFEST)
    artist_of = read_artist_ids(Path(settings.catalogue))
    log = read_log(settings.log, forgotten=settings.forgotten)
    ids, listens = co_listens(log, artist_of)
    with threadpool_limits(1):  # the sums of linear algebra depend on the number of threads
        known, vectors = artist_vectors(listens, dim=settings.dim, least_listeners=settings.least_listeners)
    with writing(out), new_folder(out) as folder:
        training = {"log": log.fingerprint, "users": len(log.users), "least_listeners": settings.least_listeners}
        write_artist_table(folder, ids.gather(known).to_list(), vectors, training=training)
    return Outcome(table=load_artist_table(out), without=artist_of["artist_id"].n_unique() - len(known))


def read_artist_ids(catalogue: Path) -> pl.DataFrame:
    """The columns track_id and artist_id of a catalogue, without tracks whose artist is not known.

    Raises:
        SettingsError: it cannot be read, or lacks a column.
    """
    form = "give a CSV or Parquet file with the columns track_id and artist_id"
    try:
        lazy = (
            pl.scan_parquet(catalogue) if catalogue.suffix == ".parquet" else pl.scan_csv(catalogue, infer_schema=False)
        )
        frame = lazy.select(pl.col("track_id", "artist_id").cast(pl.String)).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SettingsError(f"{catalogue} cannot be read ({type(error).__name__}); {form}") from error
    frame = frame.drop_nulls().unique("track_id", keep="first", maintain_order=True)
    if frame.is_empty():
        raise SettingsError(f"{catalogue} names the artist of no track; {form}")
    for name in ("track_id", "artist_id"):
        checked_ids(frame[name], str(catalogue))
    return frame


def co_listens(log: InteractionLog, artist_of: pl.DataFrame) -> tuple[pl.Series, csr_array]:
    """The artists that people listen to, and how often each user listened to each of them.

    Args:
        log: of listens; what counts for a history counts here.
        artist_of: as read_artist_ids gives it.

    Returns:
        (artists,) ids in the order of their bytes, and (users, artists) listens.
    """
    tracks = pl.DataFrame({"track_id": log.tracks}).join(artist_of, on="track_id", how="left", maintain_order="left")
    ids = tracks["artist_id"].drop_nulls().unique().sort()
    if ids.is_empty():
        raise SettingsError(
            f"the catalogue names the artist of no track of {log.where}; give the catalogue of this log"
        )
    place = tracks["artist_id"].cast(pl.Enum(ids)).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    positions = np.flatnonzero(IS_USABLE[log.signal] & (place[log.track] >= 0))
    at = log.user_of(positions), place[log.track[positions]]
    return ids, coo_array((np.ones(len(positions)), at), shape=(len(log.users), len(ids))).tocsr()


def artist_vectors(listens: csr_array, *, dim: int, least_listeners: int) -> tuple[NDArray[np.int64], Float32]:
    """Vectors of the artists that enough people listen to.

    Args:
        listens: (users, artists) how often; 0 where never.
        dim: of the vectors.
        least_listeners: an artist has a vector from so many listeners on.

    Returns:
        (n,) columns of the artists that have a vector, and (n, dim) the vectors, of unit norm.

    Raises:
        SettingsError: there are not more users and artists than dimensions.
    """
    columns = np.flatnonzero(listens.count_nonzero(axis=0) >= least_listeners)
    heard: Any = listens[:, columns].log1p()
    heard = heard[heard.sum(axis=1) > 0]
    if min(heard.shape) <= dim:
        raise SettingsError(
            f"{heard.shape[1]} artists with {least_listeners} listeners and {heard.shape[0]} users are too few for "
            f"{dim} dimensions; give a longer log, or set dim below both"
        )
    by_user, by_artist = (diags_array(heard.sum(axis=axis) ** -0.5) for axis in (1, 0))
    start = np.random.default_rng(_SEED).normal(size=min(heard.shape))
    right: Any = svds(by_user @ heard @ by_artist, k=dim, v0=start)[2]
    lengths = np.linalg.norm(right, axis=0)
    placed = lengths > 1e-9  # an artist whose listeners hear nothing else may be in none of the directions
    return columns[placed], (right[:, placed] / lengths[placed]).T.astype(np.float32)


def write_artist_table(folder: Path, ids: list[str], vectors: Float32, *, training: dict[str, Any]) -> None:
    """Write a table of artists to a folder.

    Args:
        folder: that is there, and empty.
        ids: of the artists, in any order.
        vectors: (artists, dim) of unit norm.
        training: how it was made.
    """
    encoded = encode_ids(ids)
    order = np.argsort(encoded)
    np.save(folder / ARTIST_IDS, encoded[order])
    np.save(folder / ARTIST_VECTORS, vectors[order])
    manifest = ArtistsManifest(dim=vectors.shape[1], artists=len(ids), files=describe_files(folder), training=training)
    write_json(folder / ARTISTS_MANIFEST, manifest)
