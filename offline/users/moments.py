"""The moments of users, laid out in files, so that any process can embed a range of them.

given = lay_out(Path("users.partial/given"), rows, moments)
work = Embedding(given=str(given.folder), release="towers/mean", history=64, feedback=256)
work(range(0, 8192))  # the first moments, in the order of users and times
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from models.errors import ReleaseError
from models.refresh import refresh
from models.release import MANIFEST, load_release
from models.user_tower import UserTower, load_user_tower
from offline.interactions.log import ROW, SortedRows, append
from offline.spread import Files
from offline.users.as_of import stored_as_of

EMBEDDED = "embedded.arrow"
MOMENT = np.dtype([("user", "<i4"), ("at", "<i8")])

_ROWS, _MOMENTS, _OFFSETS, _USERS, _TRACKS = "rows", "moments", "offsets", "users.parquet", "tracks.parquet"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was laid out.

    Attributes:
        count: of the moments.
        sha256: of all of it.
    """

    count: int
    sha256: str


def lay_out(folder: Path, rows: SortedRows, moments: Iterable[NDArray[Any]]) -> Given:
    """Write the rows of a log, and the moments of the users of each of its parts, to a folder that is there.

    Args:
        folder: of the files; what they hold is replaced.
        rows: of the log, for the users of the moments alone.
        moments: (n,) of MOMENT for each part of the rows, in any order.
    """
    digest, count, lengths = hashlib.sha256(), 0, np.zeros(len(rows.users), np.int64)
    with (folder / _ROWS).open("wb") as all_rows, (folder / _MOMENTS).open("wb") as all_moments:
        for part, of_part in zip(rows.parts(), moments, strict=True):
            ordered = of_part[np.lexsort([of_part["at"], of_part["user"]])]
            lengths += np.bincount(part["user"], minlength=len(lengths))
            count += len(ordered)
            for sink, array in ((all_rows, part), (all_moments, ordered)):
                append(sink, array)
                digest.update(array.view(np.uint8).data)
    (folder / _OFFSETS).write_bytes(np.concatenate([[0], np.cumsum(lengths)]).astype("<i8").tobytes())
    for name, ids in ((_USERS, rows.users), (_TRACKS, rows.tracks)):
        pl.DataFrame({"id": ids}).write_parquet(folder / name)
        digest.update((folder / name).read_bytes())
    return Given(count=count, sha256=digest.hexdigest())


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """The work of a shard: a range of the moments that were laid out.

    Attributes:
        given: folder of what was laid out.
        release: as load_tower takes it.
        history, feedback: as in EmbedUsers.
    """

    given: str
    release: str | None
    history: int
    feedback: int

    def __call__(self, shard: range) -> Files:
        """The file of a shard: an Arrow stream of the columns of `schema`, a row for each moment."""
        tower, users, tracks = _loaded(self.given, self.release)
        moments = np.array(_mapped(self.given, _MOMENTS, MOMENT)[shard.start : shard.stop])
        offsets = _mapped(self.given, _OFFSETS, np.dtype("<i8"))
        first, last = int(offsets[moments["user"][0]]), int(offsets[moments["user"][-1] + 1])
        rows = np.array(_mapped(self.given, _ROWS, ROW)[first:last])
        stored = list(stored_as_of(rows, moments, tracks, history=self.history, feedback=self.feedback))
        refreshed, dim = refresh(tower, stored), tower.manifest.dim
        columns = [
            users.gather(moments["user"]).to_arrow().cast(pa.string()),
            pa.array(moments["at"]),
            pa.FixedSizeListArray.from_arrays(pa.array(refreshed.embeddings.ravel()), dim),
            pa.array(np.where(refreshed.of_history, "history", "global")),
            pa.array(refreshed.listens.astype(np.int64)),
        ]
        file = io.BytesIO()
        with pa.ipc.new_stream(file, schema(dim)) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema(dim)))
        return {EMBEDDED: file.getvalue()}


def schema(dim: int) -> pa.Schema:
    """The columns of embeddings of so many dimensions."""
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("at", pa.int64()),
            ("embedding", pa.list_(pa.float32(), dim)),
            ("source", pa.string()),
            ("listens", pa.int64()),
        ]
    )


def shards(count: int, *, at_once: int) -> dict[str, range]:
    """Ranges of so many moments, by the names of their shards."""
    return {
        f"{number:06d}": range(first, min(first + at_once, count))
        for number, first in enumerate(range(0, count, at_once))
    }


def load_tower(where: str | None) -> UserTower:
    """The user tower of a release, or one that was trained.

    Args:
        where: a folder, or an fsspec URL of one; the shipped release when None.

    Raises:
        ReleaseError: there is none, or it is damaged.
    """
    if where is None:
        return load_release().user_tower()
    try:
        source, root = fsspec.url_to_fs(where)
        is_release = source.exists(f"{root}/{MANIFEST}")
    except Exception as error:  # every fsspec package raises errors of its own
        raise ReleaseError(f"{where} cannot be opened ({error}); name a release or a trained tower") from error
    return load_release(where).user_tower() if is_release else load_user_tower(where)


@lru_cache(maxsize=1)
def _loaded(given: str, release: str | None) -> tuple[UserTower, pl.Series, pl.Series]:
    """A process loads the tower and the ids of users and tracks once."""
    users, tracks = (pl.read_parquet(Path(given, name))["id"] for name in (_USERS, _TRACKS))
    return load_tower(release), users, tracks


def _mapped(given: str, name: str, kind: np.dtype[Any]) -> NDArray[Any]:
    path = Path(given, name)
    return np.memmap(path, kind, mode="r") if path.stat().st_size else np.empty(0, kind)
