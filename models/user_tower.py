"""A trained user tower: from a listening history to a place in taste space, through ONNX Runtime.

    tower = load_user_tower("towers/mean")
    rows = tower.items.rows(["t1", "t2"])  # the tracks' places in the item table; -1 for one that is not in it
    signals = [Signal.PLAY, Signal.LIKE]   # models.history
    user = tower.embed([rows], [signals], [[1767222000000, 1767222180000]])[0]
    scores = tower.items.vectors @ user    # of every track of the table

The embedding is a function of the newest listens alone: user_id is no input, and ages are measured from the newest
listen, never from the clock.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.demonstration import made_up
from models.errors import ReleaseError
from models.history import IS_USABLE, CountingRule
from models.onnx_session import open_session
from models.sealed_folder import SealedFile, SealedKind, load_sealed

TOWER_MANIFEST = "tower.json"
NETWORK, ITEM_IDS, ITEM_VECTORS = "tower.onnx", "item_ids.npy", "item_vectors.npy"
_ADVICE = "train it again with `tastewave-offline train-user-tower`"
_ROWS_REMEMBERED = 100_000  # 13 MiB
_USERS_KEPT = 256  # of 50 listens, 2 MiB for each thread
_NEW = -2  # where the row of a track is not remembered
_END = b"\x01"  # after each id: numpy's byte strings lose zeros at their end


class TowerManifest(msgspec.Struct, frozen=True, kw_only=True):
    """tower.json.

    Attributes:
        pooling: mean or attention.
        dim: of taste space.
        history: newest listens that count.
        counting: which listens count, and for what.
        scale: one over the temperature: what dot products are multiplied by in the softmax.
        global_embedding: (dim,) of a user with no usable history: near what people listen to first.
        items: how many tracks the item table has.
        files: size and SHA-256 of each file.
        training: how the tower was made: its configuration, split, log and course.
    """

    pooling: str
    dim: int
    history: int
    counting: CountingRule
    scale: float
    global_embedding: tuple[float, ...]
    items: int
    files: dict[str, SealedFile]
    training: dict[str, Any]

    @property
    def demonstration(self) -> str | None:
        """What has to be said of its taste space, where it was learned from a made-up platform; None elsewhere."""
        return made_up(self.training)


class ItemTable:
    """Ids and vectors of tracks, memory-mapped.

    Attributes:
        vectors: (items, dim) float32, unit norm.
    """

    def __init__(self, ids: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
        """ids: (items,) as encode_ids gives them, sorted."""
        self._ids = ids
        self.vectors = vectors
        self._remembered = dict[bytes, int]()

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, track_ids: Iterable[str]) -> NDArray[np.int64]:
        """(n,) places of tracks in the table; -1 for one that is not in it."""
        return self._search([track_id.encode() for track_id in track_ids])

    def rows_of(self, track_ids: Sequence[bytes]) -> NDArray[np.int64]:
        """The same for ids in UTF-8. Those of the last calls are found without a search."""
        known = self._remembered
        rows = np.fromiter(map(known.get, track_ids, itertools.repeat(_NEW)), np.int64, len(track_ids))
        if places := np.flatnonzero(rows == _NEW).tolist():
            new = list({track_ids[place] for place in places})
            of_new = dict(zip(new, self._search(new).tolist(), strict=True))
            rows[places] = [of_new[track_ids[place]] for place in places]
            if len(known) + len(new) > _ROWS_REMEMBERED:
                known = self._remembered = {}  # and no clear(): another thread may be reading
            known.update(of_new)
        return rows

    def _search(self, track_ids: Sequence[bytes]) -> NDArray[np.int64]:
        longest = self._ids.itemsize - len(_END)  # a longer id would have numpy widen a copy of the whole table
        wanted = np.array([code + _END if len(code) <= longest else b"" for code in track_ids], dtype=self._ids.dtype)
        places = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        return np.where(self._ids[places] == wanted, places, -1)

    def track_id(self, row: int) -> str:
        """The id of the track at a place."""
        return bytes(self._ids[row])[: -len(_END)].decode()


def encode_ids(track_ids: Iterable[str]) -> NDArray[np.bytes_]:
    """(n,) byte strings that sort as the item table does."""
    return np.array([track_id.encode() + _END for track_id in track_ids], dtype=np.bytes_)


class UserTower:
    """A tower and its item table. Safe to share between threads.

    Attributes:
        manifest: what it is.
        items: the tracks that it knows.
    """

    def __init__(self, manifest: TowerManifest, items: ItemTable, session: Any) -> None:
        self.manifest = manifest
        self.items = items
        self._session = session
        self._of_thread = threading.local()

    def embed(
        self, rows: ArrayLike, signals: ArrayLike, at_ms: ArrayLike, *, more: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Embeddings of listening histories.

        Args:
            rows: (n, length) places in the item table or, behind its end, in `more`, oldest first; -1 where a track is
                in neither or the history is shorter. Only the newest `manifest.history` listens of each row count.
            signals: (n, length) codes of models.history.Signal; 0 where the history is shorter.
            at_ms: (n, length) times of the listens, milliseconds; only their differences count.
            more: (m, dim) float32 of unit norm: embeddings of further tracks.

        Returns:
            (n, dim) of unit norm; the global embedding for a history without a usable listen.
        """
        rows, signals, ages_s, usable = newest_known(rows, signals, at_ms, history=self.manifest.history)
        embeddings = np.tile(np.asarray(self.manifest.global_embedding, np.float32), (len(rows), 1))
        if usable.any():
            rows, signals = rows[usable], signals[usable]
            vectors = self._buffer(len(rows))
            # "clip" writes without a copy between; what it clips are the rows of `more`
            np.take(self.items.vectors, rows, axis=0, out=vectors, mode="clip")
            if more is not None:
                behind = rows >= len(self.items)
                vectors[behind] = more[rows[behind] - len(self.items)]
            vectors[signals == 0] = 0.0
            inputs = {"vectors": vectors, "signals": signals, "ages_s": ages_s[usable]}
            (embeddings[usable],) = self._session.run(None, inputs)
        return embeddings

    def _buffer(self, users: int) -> NDArray[np.float32]:
        """(users, history, dim), whatever is in it. That of few users is kept: to get it from the kernel anew each time
        costs as much as to fill it.
        """
        buffer = getattr(self._of_thread, "buffer", None)
        if buffer is None or len(buffer) < users:
            buffer = np.empty((users, self.manifest.history, self.manifest.dim), np.float32)
            if users <= _USERS_KEPT:
                self._of_thread.buffer = buffer
        return buffer[:users]


def newest_known(
    rows: ArrayLike, signals: ArrayLike, at_ms: ArrayLike, *, history: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """What a tower's network sees of histories: of the newest listens those of known tracks, at the end.

    Args:
        rows: (n, length), as for UserTower.embed.
        signals: (n, length) likewise.
        at_ms: (n, length) likewise.
        history: newest listens that count.

    Returns:
        rows, signals and ages in seconds, (n, history), 0 where there is no listen; and (n,) whether there is a usable
        listen among them.
    """
    rows, signals, at_ms = (np.asarray(array, np.int64) for array in (rows, signals, at_ms))
    listens = signals > 0
    if rows.shape[1] > history:
        listens &= np.cumsum(listens[:, ::-1], axis=1)[:, ::-1] <= history
    known = listens & (rows >= 0)
    if rows.shape[1] != history or np.any(known[:, :-1] > known[:, 1:]):  # else they stand at the end already
        order = np.argsort(known, axis=1, kind="stable")[:, -history:]
        pad = ((0, 0), (history - order.shape[1], 0))
        rows, signals, at_ms, known = (
            np.pad(np.take_along_axis(array, order, axis=1), pad) for array in (rows, signals, at_ms, known)
        )
    ages_s = (at_ms[:, -1:] - at_ms) / 1000.0
    rows, signals, ages_s = (np.where(known, array, 0) for array in (rows, signals, ages_s))
    return rows, signals, ages_s, np.asarray(IS_USABLE[signals].any(axis=1))


def load_user_tower(where: str | Path) -> UserTower:
    """Read and verify a tower.

        tower = load_user_tower("towers/mean")
        tower.manifest.dim, len(tower.items)  # 40 dimensions, and how many tracks it knows

    Args:
        where: a folder that `tastewave-offline train-user-tower` wrote, or an fsspec URL of one.

    Raises:
        ReleaseError: it is missing, damaged, or its parts do not fit together.
    """
    return load_sealed(where, _TOWER, make=_open_tower)


def _decode(content: bytes, _: str) -> TowerManifest:
    return msgspec.json.decode(content, type=TowerManifest)


def _check(manifest: TowerManifest, shown: str) -> None:
    if missing := {NETWORK, ITEM_IDS, ITEM_VECTORS} - manifest.files.keys():
        raise ReleaseError(f"{TOWER_MANIFEST} of {shown} does not list {', '.join(sorted(missing))}; {_ADVICE}")


_TOWER = SealedKind(what="a trained tower", manifest=TOWER_MANIFEST, decode=_decode, check=_check, advice=_ADVICE)


def _open_tower(manifest: TowerManifest, folder: Path) -> UserTower:
    try:
        # As plain arrays, which are mapped all the same: indexing a memmap costs a call of Python each time.
        ids, vectors = (np.load(folder / name, mmap_mode="r").view(np.ndarray) for name in (ITEM_IDS, ITEM_VECTORS))
        session = open_session(folder / NETWORK)
    except Exception as error:
        raise ReleaseError(f"the tower in {folder} cannot be loaded ({error}); {_ADVICE}") from error
    if ids.shape != (manifest.items,) or vectors.shape != (manifest.items, manifest.dim):
        raise ReleaseError(
            f"the item table in {folder} has {ids.shape} ids and {vectors.shape} vectors, its manifest says "
            f"{manifest.items} of {manifest.dim}; {_ADVICE}"
        )
    return UserTower(manifest, ItemTable(ids, vectors), session)
