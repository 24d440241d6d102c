"""An interaction log: Parquet files of listens, read in pieces and encoded as memory-mapped arrays.

A log is a Parquet file, a folder of them, a glob, or any of these at an fsspec URL, with the columns of the listens
event: user_id, track_id, at, and where there are such kind, played_ms, duration_ms and excluded. It may be larger than
memory: two passes over its files write one file for each range of users, and each of these is sorted by itself.

What a later event takes back does not count (offline.interactions.taken_back), and what is excluded or forgotten is not
read (offline.interactions.left_out), as in the stream.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from models.errors import SettingsError
from models.events import MAX_ID_BYTES
from models.history import KINDS, LATEST_MS, LONGEST_MS, CountingRule, Signal
from offline.interactions.left_out import Forgotten, read_forgotten, without_excluded
from offline.interactions.shards import Shard, find_shards, left_out_text
from offline.interactions.taken_back import standing
from offline.progress import progress_bar

_PLAY = KINDS.index("play")
_PART_ROWS = 4_000_000  # about what is sorted at a time
_LIKELY_SECONDS = (10**8, 10**11)  # as milliseconds these lie between January 1970 and March 1973
_ARRAYS = {"track": np.dtype("<i4"), "at": np.dtype("<i8"), "signal": np.dtype("u1")}
ROW = np.dtype(
    [("user", "<i4"), ("at", "<i8"), ("kind", "u1"), ("played", "<i8"), ("duration", "<i8"), ("track", "<i4")]
)
"""A row as SortedRows.parts gives it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InteractionLog:
    """A log in arrays. The listens of user u are offsets[u] to offsets[u + 1], in the order of models.history.

    Attributes:
        where: what was read.
        users: (users,) ids in the order of their bytes.
        tracks: (tracks,) likewise.
        offsets: (users + 1,) int64.
        track: (listens,) int32, places in tracks.
        at: (listens,) int64 ms, UTC.
        signal: (listens,) uint8, models.history.Signal; those that say nothing are left out.
        rows: how many the files have.
        duplicates: how many of them were the same listen again.
        excluded: how many of them the platform had marked so.
        forgotten: how many of them were of users or tracks that were forgotten since.
        taken_back: how many of them a later event took back.
        fingerprint: 12 hex digits of a hash over all of it.
    """

    where: str
    users: pl.Series
    tracks: pl.Series
    offsets: NDArray[np.int64]
    track: NDArray[np.int32]
    at: NDArray[np.int64]
    signal: NDArray[np.uint8]
    rows: int
    duplicates: int
    excluded: int
    forgotten: int
    taken_back: int
    fingerprint: str

    def user_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the users whose listens stand at positions (n,)."""
        return np.searchsorted(self.offsets, positions, side="right") - 1


def spans(starts: NDArray[np.integer], ends: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Spans of positions, laid end to end: the number of the span that each position is of, and the position.

    Example:
        The spans 3 to 5 and 8 to 9 give [0, 0, 1] and [3, 4, 8].

    Args:
        starts: (n,) first positions.
        ends: (n,) one after the last position; a span that ends before it starts is empty.
    """
    lengths = np.maximum(0, np.asarray(ends, np.int64) - starts)
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return numbers, np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def read_log(
    where: str, *, rule: CountingRule | None = None, scratch: Path | None = None, forgotten: str | None = None
) -> InteractionLog:
    """Read a log and encode it.

    Example:
        log = read_log("listens/*.parquet")
        newest = log.track[log.offsets[0] : log.offsets[1]][-10:]  # of the first user, as places in log.tracks

    Args:
        where: a Parquet file, a folder of them, a glob, or an fsspec URL of one of these.
        rule: what counts; the defaults of CountingRule when absent.
        scratch: folder of the job, where the arrays lie while the log is in use; the system's when absent.
        forgotten: where a dump of the topic tastewave.forgotten lies.

    Raises:
        SettingsError: there is no log, a column is missing or of another type, or a value cannot be right.
    """
    rule = rule or CountingRule()
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        rows = stack.enter_context(
            sorted_rows(where, progress=progress, scratch=scratch, forgotten=read_forgotten(forgotten))
        )
        sinks = {name: stack.enter_context(TemporaryFile(dir=scratch)) for name in _ARRAYS}
        counts, taken_back = np.zeros(len(rows.users), np.int64), 0
        for listens in rows.parts():
            signal = rule.signals(listens["kind"], listens["played"], listens["duration"])
            says = (signal != Signal.NONE) & standing(listens)
            taken_back += int(np.sum(signal != Signal.NONE) - np.sum(says))
            counts += np.bincount(listens["user"][says], minlength=len(rows.users))
            for name, content in (("track", listens["track"]), ("at", listens["at"]), ("signal", signal)):
                append(sinks[name], content[says].astype(_ARRAYS[name]))
        _check_counts(where, rows.count, duplicates=rows.duplicates, listens=int(counts.sum()))
        arrays: dict[str, Any] = {name: _mapped(sink, _ARRAYS[name]) for name, sink in sinks.items()}
    offsets = np.concatenate([[0], np.cumsum(counts)])
    digest = hashlib.sha256(msgspec.json.encode([rows.users.to_list(), rows.tracks.to_list()]))
    for array in (offsets, *arrays.values()):
        digest.update(array.data)
    return InteractionLog(
        where=where,
        users=rows.users,
        tracks=rows.tracks,
        offsets=offsets,
        rows=rows.count,
        duplicates=rows.duplicates,
        excluded=rows.excluded,
        forgotten=rows.forgotten,
        taken_back=taken_back,
        fingerprint=digest.hexdigest()[:12],
        **arrays,
    )


class SortedRows:
    """The rows of a log, those of a range of users at a time.

    Attributes:
        users: ids in the order of their bytes: those that the log has, or those that were asked for.
        tracks: ids in the order of their bytes.
        count: how many rows the files have.
        duplicates, excluded, forgotten: how many rows were left out so far, as in InteractionLog.
    """

    def __init__(self, shards: Sequence[Shard], files: Sequence[IO[bytes]], forgotten: Forgotten) -> None:
        self._shards, self._files, self._forgotten = shards, files, forgotten
        self.count = sum(shard.rows for shard in shards)
        self.duplicates = self.excluded = self.forgotten = 0
        self.users = self.tracks = pl.Series(dtype=pl.String)

    def read(self, progress: Progress, *, users: pl.Series | None) -> None:
        """Find the ids, and write the rows of each range of users to a file."""
        task = progress.add_task("Reading the log", total=2 * self.count)
        self.users, self.tracks = self._ids(users, progress, task)
        codes = {"users": pl.Enum(self.users), "tracks": pl.Enum(self.tracks)}
        for shard in self._shards:
            for batch in shard.batches():
                included = without_excluded(batch)
                kept = self._forgotten.drop(included)
                self.excluded += len(batch) - len(included)
                self.forgotten += len(included) - len(kept)
                listens = _rows(kept if users is None else _only(kept, self.users), shard.path, **codes)
                place = self.part_of(listens["user"])
                for number, file in enumerate(self._files):
                    append(file, listens[place == number])
                progress.advance(task, len(batch))

    @property
    def part_count(self) -> int:
        """How many ranges of users there are."""
        return len(self._files)

    def part_of(self, users: NDArray[np.integer]) -> NDArray[np.int64]:
        """(n,) the numbers of the parts in which these users, places in `users`, are."""
        return users.astype(np.int64) * len(self._files) // max(1, len(self.users))

    def parts(self) -> Iterator[NDArray[Any]]:
        """For each range of users their rows in the order of users and of their histories.

        Returns:
            (n,) with the fields user and track (places in `users` and `tracks`), at, kind, played and duration (-1
            where a play does not tell).
        """
        for file in self._files:
            listens, repeated = _in_order(read_back(file, ROW))
            file.close()
            self.duplicates += repeated
            yield listens

    def _ids(self, users: pl.Series | None, progress: Progress, task: TaskID) -> tuple[pl.Series, pl.Series]:
        """The ids of users and tracks in the order of their bytes."""
        ids = {"user_id": pl.Series(dtype=pl.String), "track_id": pl.Series(dtype=pl.String)}
        for shard in self._shards:
            for batch in shard.batches((*ids, "excluded", *self._forgotten.columns)):
                kept = self._forgotten.drop(without_excluded(batch))
                if users is not None:
                    kept = _only(kept, users)
                for name, known in ids.items():
                    ids[name] = pl.concat([known, checked_ids(kept[name], shard.path)]).unique()
                progress.advance(task, len(batch))
        found, tracks = (of_column.sort() for of_column in ids.values())
        return found if users is None else users, tracks


@contextmanager
def sorted_rows(
    where: str, *, progress: Progress, scratch: Path | None, forgotten: Forgotten, users: pl.Series | None = None
) -> Iterator[SortedRows]:
    """Read the rows of a log that may be used, duplicates left out.

    Args:
        where: as for read_log.
        progress: bar that shows how far the reading is.
        scratch: as for read_log.
        forgotten: what was forgotten since.
        users: ids in the order of their bytes, whose rows alone are wanted; all of them when absent.

    Raises:
        SettingsError: as read_log does, also for an OSError inside the block.
    """
    shards, left_out = find_shards(where)
    parts = max(1, -(-sum(shard.rows for shard in shards) // _PART_ROWS))
    try:
        with ExitStack() as stack:
            if left_out:
                progress.console.print(left_out_text(left_out), markup=False, highlight=False, soft_wrap=True)
            # The files have no name, so that nothing is left of them when the process ends, however it ends.
            files = [stack.enter_context(TemporaryFile(dir=scratch)) for _ in range(parts)]
            rows = SortedRows(shards, files, forgotten)
            rows.read(progress, users=users)
            yield rows
    except OSError as error:
        raise SettingsError(
            f"{scratch or tempfile.gettempdir()} cannot be written ({error.strerror or error}); make room for "
            f"{sum(shard.rows for shard in shards) * ROW.itemsize:,} bytes, and run this again"
        ) from error


def _only(frame: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    return frame.filter(pl.col("user_id").cast(pl.String).is_in(users.implode()))


def append(sink: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array behind what a file holds."""
    sink.write(array.view(np.uint8).data)


def read_back(file: IO[bytes], kind: np.dtype[Any]) -> NDArray[Any]:
    """What was appended to a file."""
    file.seek(0)
    return np.fromfile(file, kind)


def _mapped(sink: IO[bytes], kind: np.dtype[Any]) -> NDArray[Any]:
    sink.flush()
    return np.memmap(sink, kind, mode="r")


def _check_counts(where: str, rows: int, *, duplicates: int, listens: int) -> None:
    if 2 * duplicates > rows:
        raise SettingsError(
            f"{duplicates:,} of the {rows:,} rows of {where} are the same listen again (user, track, at and all); keep "
            "times to the millisecond, and name each file once"
        )
    if not listens:
        raise SettingsError(f"{where} holds no listen that says anything; name a log with plays or likes")


def checked_ids(column: pl.Series, path: str) -> pl.Series:
    """The different ids of a column. Raises SettingsError where one cannot be right."""
    ids = column.cast(pl.String).unique()
    size = ids.str.len_bytes()
    if ids.null_count() or size.min() == 0 or int(size.max() or 0) > MAX_ID_BYTES:  # type: ignore[arg-type]
        raise SettingsError(
            f"{path}: column {column.name} has ids that are missing, empty or over {MAX_ID_BYTES} bytes; drop those "
            "rows"
        )
    return ids


def _rows(batch: pl.DataFrame, path: str, *, users: pl.Enum, tracks: pl.Enum) -> NDArray[Any]:
    """(rows,) of ROW, in any order. Raises SettingsError for values that cannot be right."""
    rows = np.empty(len(batch), ROW)
    for field, name, kind in (("user", "user_id", users), ("track", "track_id", tracks)):
        rows[field] = batch[name].cast(pl.String).cast(kind).to_physical().to_numpy()
    rows["at"] = times_ms(batch["at"], path)
    kinds = batch["kind"].cast(pl.String) if "kind" in batch.columns else pl.Series([None], dtype=pl.String)
    if unknown := set(kinds.unique().drop_nulls()) - set(KINDS):
        raise SettingsError(f"{path}: kind {min(unknown)!r} is none of {', '.join(KINDS)}; map it to one of these")
    rows["kind"] = kinds.cast(pl.Enum(KINDS)).to_physical().fill_null(_PLAY).to_numpy()
    for field, name in (("played", "played_ms"), ("duration", "duration_ms")):
        length = batch[name] if name in batch.columns else pl.Series([None], dtype=pl.Int64)
        for strange in (length.min(), length.max()):
            if strange is not None and not 0 <= int(strange) <= LATEST_MS:  # type: ignore[arg-type]
                raise SettingsError(f"{path}: column {name} has the value {strange}; a length is 0 ms or more, or null")
        told = np.minimum(length.cast(pl.Int64).fill_null(-1).to_numpy(), LONGEST_MS)
        rows[field] = np.where(rows["kind"] == _PLAY, told, np.maximum(told, 0))
    return rows


def times_ms(column: pl.Series, path: str) -> NDArray[np.int64]:
    """(n,) a column of times in milliseconds. Raises SettingsError where one is missing or cannot be right."""
    if column.null_count():
        raise SettingsError(f"{path}: column at is empty in {column.null_count()} rows; drop them")
    if not len(column):
        return np.zeros(0, np.int64)
    shown, anew = column, "at is in milliseconds, UTC"
    mend = "divide nanoseconds by 1,000,000 and microseconds by 1,000"
    if column.dtype.is_temporal():
        column, shown = column.dt.epoch("ms"), column.dt.strftime("%Y-%m-%d")
        anew, mend = "read them with their unit, and cast them again", "drop or mend those rows"
    first, last = (shown[place] for place in (column.arg_min(), column.arg_max()) if place is not None)
    if column.is_between(*_LIKELY_SECONDS, closed="left").any():
        raise SettingsError(f"{path}: times from {first} to {last} look like seconds; {anew}")
    if column.min() < 0 or column.max() > LATEST_MS:  # type: ignore[operator]
        raise SettingsError(f"{path}: times from {first} to {last} are no milliseconds since 1970; {mend}")
    return column.to_numpy()


def _in_order(rows: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Rows in the order of users and their histories, without those that come again, and how many came again."""
    rows = rows[np.lexsort([np.maximum(rows[name], 0) for name in reversed(ROW.names or ())])]
    again = np.zeros(len(rows), bool)
    again[1:] = rows[1:] == rows[:-1]
    return rows[~again], int(again.sum())
