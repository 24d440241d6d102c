"""`tastewave-offline embed-users`: the embeddings that Redis would have answered with at given moments.

They are computed from the events up to each moment by the code that the workers run (models.history, models.refresh).
So a model that is trained on them sees what it will see when it is used, and nothing of the future.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.progress import Progress

from models.errors import SettingsError
from models.user_tower import UserTower
from offline.files import locked, new_file, writing
from offline.interactions.left_out import read_forgotten
from offline.interactions.log import SortedRows, append, checked_ids, read_back, sorted_rows, times_ms
from offline.interactions.shards import Content, Shard, find_shards
from offline.progress import progress_bar
from offline.spread import spread
from offline.users.moments import EMBEDDED, MOMENT, Embedding, Given, lay_out, load_tower, schema, shards
from offline.users.settings import EmbedUsers

_MOMENT_COLUMNS: dict[str, Content] = {"user_id": "text", "at": "a time"}
_AT_ONCE = 8192  # moments of a shard, which are one forward pass and one row group


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
    """Embed users as of moments; a run that was killed goes on with the shards that it had done.

    The file has the columns user_id, at (ms, UTC), embedding (float32, fixed size), source (history or global) and
    listens, in the order of users and times, and a row for each row of the moments. It appears when it is whole.

    Raises:
        SettingsError: the log, the moments or Ray cannot be used, fewer listens are to be kept than the tower reads, or
            the file cannot be written.
        ReleaseError: there is no tower, or it is damaged.
        SpreadFailed: the processes die, whatever they embed.
    """
    tower, out = load_tower(settings.release), Path(settings.out)
    if settings.history < tower.manifest.history:
        raise SettingsError(
            f"history is {settings.history}, and the tower reads the newest {tower.manifest.history} listens; "
            "set it to what the workers keep"
        )
    of, _ = find_shards(settings.moments, required=_MOMENT_COLUMNS, optional={})
    with writing(out, ": what was embedded stays"), _partial(out) as partial, progress_bar() as progress:
        given = _given(settings, of, partial / "given", progress)
        done = _embed(settings, tower, given, partial, progress)
        with new_file(out) as draft:
            moments, of_history = _write(draft, done, dim=tower.manifest.dim)
        shutil.rmtree(partial, ignore_errors=True)
    return Outcome(out=out, moments=moments, of_history=of_history)


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """The folder of what a run has done so far; one in which nothing was done does not stay."""
    folder = out.resolve().with_name(out.name + ".partial")
    with locked(folder):
        try:
            yield folder
        finally:
            if not any(folder.glob("done-*/[0-9]*")):
                shutil.rmtree(folder, ignore_errors=True)


def _given(settings: EmbedUsers, of: Sequence[Shard], folder: Path, progress: Progress) -> Given:
    """Lay out the moments, and the listens of their users."""
    folder.mkdir(exist_ok=True)
    forgotten, users = read_forgotten(settings.forgotten), _users(of, settings.moments)
    with ExitStack() as stack:
        rows = stack.enter_context(
            sorted_rows(settings.log, progress=progress, scratch=folder, forgotten=forgotten, users=users)
        )
        files = [stack.enter_context(TemporaryFile(dir=folder)) for _ in range(rows.part_count)]
        _distribute(of, rows, files)
        return lay_out(folder, rows, _read_once(files))


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
            moments = np.empty(len(batch), MOMENT)
            moments["user"] = batch["user_id"].cast(pl.String).cast(codes).to_physical().to_numpy()
            moments["at"] = times_ms(batch["at"], shard.path)
            part = rows.part_of(moments["user"])
            for number, file in enumerate(files):
                append(file, moments[part == number])


def _read_once(files: Iterable[IO[bytes]]) -> Iterator[NDArray[Any]]:
    for file in files:
        yield read_back(file, MOMENT)
        file.close()


def _embed(settings: EmbedUsers, tower: UserTower, given: Given, partial: Path, progress: Progress) -> list[Path]:
    """The sealed shards of all moments, in their order."""
    decides = [given.sha256, tower.manifest, settings.history, settings.feedback, _AT_ONCE]
    out = partial / f"done-{hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:12]}"
    for other in partial.glob("done-*"):
        if other != out:
            shutil.rmtree(other)
    out.mkdir(exist_ok=True)
    work = Embedding(
        given=str(partial / "given"), release=settings.release, history=settings.history, feedback=settings.feedback
    )
    of_moments = shards(given.count, at_once=_AT_ONCE)
    if given_up := spread(
        work, of_moments, out=out, progress=progress, label="Embedding users", processes=settings.processes,
        ray=settings.ray,
    ):  # fmt: skip
        raise SettingsError(f"the moments of shard {given_up[0]} killed their processes; use fewer processes")
    return [out / name for name in of_moments]


def _write(draft: Path, done: Sequence[Path], *, dim: int) -> tuple[int, int]:
    """How many rows were written, and how many of them are of a history."""
    rows = of_history = 0
    with pq.ParquetWriter(draft, schema(dim), compression="zstd") as writer:
        for folder in done:
            table = pa.ipc.open_stream((folder / EMBEDDED).read_bytes()).read_all()
            writer.write_table(table)
            rows += len(table)
            of_history += table["source"].to_pylist().count("history")
    return rows, of_history
