"""`tastewave-offline embed-users`: the embeddings that Redis would have answered with at given moments.

They are computed from the events up to each moment by the code that the workers run (models.history, models.refresh).
So a model that is trained on them sees what it will see when it is used, and nothing of the future.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.progress import Progress

from models.errors import ReleaseError, SettingsError
from models.history import StoredHistory
from models.refresh import refresh
from models.release import MANIFEST, load_release
from models.user_tower import UserTower, load_user_tower
from offline.files import new_file, writing
from offline.interactions.left_out import read_forgotten
from offline.interactions.log import SortedRows, append, checked_ids, read_back, sorted_rows, times_ms
from offline.interactions.shards import Content, Shard, find_shards
from offline.progress import progress_bar
from offline.users.as_of import stored_as_of
from offline.users.settings import EmbedUsers

_MOMENT_COLUMNS: dict[str, Content] = {"user_id": "text", "at": "a time"}
_MOMENT = np.dtype([("user", "<i4"), ("at", "<i8")])
_AT_ONCE = 8192  # users of a forward pass, and rows of a row group


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was written.

    Attributes:
        out: the file.
        moments: its rows.
        of_history: how many of them have an embedding of their own; the others have the global one.
    """

    out: Path
    moments: int
    of_history: int

    def lines(self) -> list[str]:
        """What the command prints."""
        without = self.moments - self.of_history
        return [
            f"{self.out}: {self.moments:,} embeddings, {without:,} of them the global one: no listen counted by then"
        ]


def run(settings: EmbedUsers) -> Outcome:
    """Embed users as of moments.

    The file has the columns user_id, at (ms, UTC), embedding (float32, fixed size), source (history or global) and
    listens, in the order of users and times, and a row for each row of the moments. It appears when it is whole.

    Raises:
        SettingsError: the log or the moments cannot be used, fewer listens are to be kept than the tower reads, or the
            file cannot be written.
        ReleaseError: there is no tower, or it is damaged.
    """
    tower, out = load_tower(settings.release), Path(settings.out)
    if settings.history < tower.manifest.history:
        raise SettingsError(
            f"history is {settings.history}, and the tower reads the newest {tower.manifest.history} listens; "
            "set it to what the workers keep"
        )
    forgotten = read_forgotten(settings.forgotten)
    shards, _ = find_shards(settings.moments, required=_MOMENT_COLUMNS, optional={})
    with writing(out), ExitStack() as stack:
        out.parent.mkdir(parents=True, exist_ok=True)
        progress = stack.enter_context(progress_bar())
        users = _users(shards, settings.moments)
        rows = stack.enter_context(
            sorted_rows(settings.log, progress=progress, scratch=out.parent, forgotten=forgotten, users=users)
        )
        files = [stack.enter_context(TemporaryFile(dir=out.parent)) for _ in range(rows.part_count)]
        _distribute(shards, rows, files)
        draft = stack.enter_context(new_file(out))
        embedded = _embed(settings, tower, rows, files, progress, total=sum(shard.rows for shard in shards))
        moments, of_history = _write(draft, embedded, dim=tower.manifest.dim)
    return Outcome(out=out, moments=moments, of_history=of_history)


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


def _users(shards: Sequence[Shard], where: str) -> pl.Series:
    """The users of the moments, in the order of their bytes."""
    users = pl.Series("user_id", dtype=pl.String)
    for shard in shards:
        for batch in shard.batches(["user_id"]):
            users = pl.concat([users, checked_ids(batch["user_id"], shard.path)]).unique()
    if users.is_empty():
        raise SettingsError(f"{where} has no rows; name users and moments to embed them at")
    return users.sort()


def _distribute(shards: Sequence[Shard], rows: SortedRows, files: Sequence[IO[bytes]]) -> None:
    """The moments of the users of each part of the log go to a file."""
    codes = pl.Enum(rows.users)
    for shard in shards:
        for batch in shard.batches():
            moments = np.empty(len(batch), _MOMENT)
            moments["user"] = batch["user_id"].cast(pl.String).cast(codes).to_physical().to_numpy()
            moments["at"] = times_ms(batch["at"], shard.path)
            part = rows.part_of(moments["user"])
            for number, file in enumerate(files):
                append(file, moments[part == number])


def _embed(
    settings: EmbedUsers,
    tower: UserTower,
    rows: SortedRows,
    files: Sequence[IO[bytes]],
    progress: Progress,
    *,
    total: int,
) -> Iterator[pa.RecordBatch]:
    """The rows of the output."""
    task = progress.add_task("Embedding users", total=total)
    for part, file in zip(rows.parts(), files, strict=True):
        moments = read_back(file, _MOMENT)
        file.close()
        moments = moments[np.lexsort([moments["at"], moments["user"]])]
        stored = stored_as_of(part, moments, rows.tracks, history=settings.history, feedback=settings.feedback)
        for first in range(0, len(moments), _AT_ONCE):
            some = moments[first : first + _AT_ONCE]
            yield _batch(tower, rows.users, some, list(islice(stored, len(some))))
            progress.advance(task, len(some))


def _batch(
    tower: UserTower, users: pl.Series, moments: NDArray[Any], stored: Sequence[StoredHistory]
) -> pa.RecordBatch:
    refreshed = refresh(tower, stored)
    schema = _schema(tower.manifest.dim)
    return pa.RecordBatch.from_arrays(
        [
            users.gather(moments["user"]).to_arrow().cast(pa.string()),
            pa.array(moments["at"]),
            pa.FixedSizeListArray.from_arrays(pa.array(refreshed.embeddings.ravel()), tower.manifest.dim),
            pa.array(np.where(refreshed.of_history, "history", "global")),
            pa.array(refreshed.listens.astype(np.int64)),
        ],
        schema=schema,
    )


def _schema(dim: int) -> pa.Schema:
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("at", pa.int64()),
            ("embedding", pa.list_(pa.float32(), dim)),
            ("source", pa.string()),
            ("listens", pa.int64()),
        ]
    )


def _write(draft: Path, batches: Iterator[pa.RecordBatch], *, dim: int) -> tuple[int, int]:
    """How many rows were written, and how many of them are of a history."""
    rows = of_history = 0
    with pq.ParquetWriter(draft, _schema(dim), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += len(batch)
            of_history += batch["source"].to_pylist().count("history")
    return rows, of_history
