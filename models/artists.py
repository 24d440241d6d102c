"""Where artists stand by their listeners: a table of vectors, made from who listened to whom.

    table = load_artist_table("artists")
    table.vector("artist-7")  # (40,) float32 of unit norm; None for an artist that the table does not know

`tastewave-offline embed-artists` makes one from a platform's log, a genre head may hear its vectors, and a release
carries it for the head. An artist without a vector has none: a vector of zeros would stand for a taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import ReleaseError
from models.sealed_folder import SealedFile, SealedKind, load_sealed
from models.user_tower import ItemTable

ARTIST_EMBEDDING = "artist_embedding"
"""The input of a genre head that holds the vector of a track's artist."""
ARTISTS_MANIFEST = "artists.json"
ARTIST_IDS, ARTIST_VECTORS = "artist_ids.npy", "artist_vectors.npy"
_ADVICE = "make it again with `tastewave-offline embed-artists`"


class ArtistsManifest(msgspec.Struct, frozen=True, kw_only=True):
    """artists.json.

    Attributes:
        dim: of the vectors.
        artists: how many have one.
        files: size and SHA-256 of each file.
        training: how the table was made.
    """

    dim: int
    artists: int
    files: dict[str, SealedFile]
    training: dict[str, Any]


class ArtistTable:
    """A table, memory-mapped.

    Attributes:
        manifest: what it is.
        folder: where its files are on this machine.
    """

    def __init__(self, manifest: ArtistsManifest, folder: Path, items: ItemTable) -> None:
        self.manifest = manifest
        self.folder = folder
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(artists, dim) of unit norm."""
        return self._items.vectors

    def rows(self, artist_ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) places of artists in `vectors`; -1 for an artist that the table does not know."""
        return self._items.rows(artist_ids)

    def vector(self, artist_id: str) -> NDArray[np.float32] | None:
        """(dim,) of unit norm; None for an artist that the table does not know."""
        (row,) = self._items.rows([artist_id]).tolist()
        return None if row < 0 else np.array(self._items.vectors[row])


def load_artist_table(where: str | Path) -> ArtistTable:
    """Read and verify a table.

    Args:
        where: a folder that `tastewave-offline embed-artists` wrote, or an fsspec URL of one.

    Raises:
        ReleaseError: it is missing, damaged, or its parts do not fit together.
    """
    return load_sealed(where, _ARTISTS, make=_open)


def _decode(content: bytes, _: str) -> ArtistsManifest:
    return msgspec.json.decode(content, type=ArtistsManifest)


def _check(manifest: ArtistsManifest, shown: str) -> None:
    if missing := {ARTIST_IDS, ARTIST_VECTORS} - manifest.files.keys():
        raise ReleaseError(f"{ARTISTS_MANIFEST} of {shown} does not list {', '.join(sorted(missing))}; {_ADVICE}")


_ARTISTS = SealedKind(
    what="a table of artists", manifest=ARTISTS_MANIFEST, decode=_decode, check=_check, advice=_ADVICE
)


def _open(manifest: ArtistsManifest, folder: Path) -> ArtistTable:
    try:
        ids, vectors = (np.load(folder / name, mmap_mode="r") for name in (ARTIST_IDS, ARTIST_VECTORS))
    except (OSError, ValueError, EOFError) as error:
        raise ReleaseError(f"the table of artists in {folder} cannot be read ({error}); {_ADVICE}") from error
    shape = (manifest.artists, manifest.dim)
    if ids.shape != shape[:1] or vectors.shape != shape or vectors.dtype != np.float32 or not len(vectors):
        raise ReleaseError(
            f"the table of artists in {folder} has {ids.shape} ids and {vectors.dtype} {vectors.shape} vectors, its "
            f"manifest says {manifest.artists} of {manifest.dim}; {_ADVICE}"
        )
    if not np.allclose(np.square(vectors).sum(axis=1), 1.0, atol=1e-3):
        raise ReleaseError(f"the table of artists in {folder} has vectors that are not of unit norm; {_ADVICE}")
    return ArtistTable(manifest, folder, ItemTable(ids, vectors))
