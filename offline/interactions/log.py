"""An interaction log: Parquet files of listens, read in pieces and encoded as memory-mapped arrays.

A log is a Parquet file, a folder of them, a glob, or any of these at an fsspec URL, with the columns of the listens
event: user_id, track_id, at, and where there are such kind, played_ms and duration_ms. It may be larger than
memory: two passes over its files write one file for each range of users, and each of these is sorted by itself.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
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
from models.history import KINDS, CountingRule, Signal
from offline.interactions.shards import Shard, find_shards, left_out_text
from offline.progress import progress_bar

_PART_ROWS = 4_000_000  # about what is sorted at a time
_LATEST_MS = 253_402_300_799_999
_LIKELY_SECONDS = (10**8, 10**11)  # as milliseconds these lie between January 1970 and March 1973
_ARRAYS = {"track": np.dtype("<i4"), "at": np.dtype("<i8"), "signal": np.dtype("u1")}
_ROW = np.dtype(
    [("user", "<i4"), ("at", "<i8"), ("kind", "u1"), ("played", "<i8"), ("duration", "<i8"), ("track", "<i4")]
)


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


def read_log(where: str, *, rule: CountingRule | None = None, scratch: Path | None = None) -> InteractionLog:
    """Read a log and encode it.

    Example:
        log = read_log("listens/*.parquet")
        newest = log.track[log.offsets[0] : log.offsets[1]][-10:]  # of the first user, as places in log.tracks

    Args:
        where: a Parquet file, a folder of them, a glob, or an fsspec URL of one of these.
        rule: what counts; the defaults of CountingRule when absent.
        scratch: folder of the job, where the arrays lie while the log is in use; the system's when absent.

    Raises:
        SettingsError: there is no log, a column is missing or of another type, or a value cannot be right.
    """
    shards, left_out = find_shards(where)
    with progress_bar() as progress:
        if left_out:
            progress.console.print(left_out_text(left_out), markup=False, highlight=False, soft_wrap=True)
        try:
            return _encode(where, shards, rule or CountingRule(), scratch, progress)
        except OSError as error:
            raise SettingsError(
                f"{scratch or tempfile.gettempdir()} cannot be written ({error.strerror or error}); make room for "
                f"{sum(shard.rows for shard in shards) * _ROW.itemsize:,} bytes, and run this again"
            ) from error


def _encode(
    where: str, shards: Sequence[Shard], rule: CountingRule, scratch: Path | None, progress: Progress
) -> InteractionLog:
    rows = sum(shard.rows for shard in shards)
    with ExitStack() as stack:
        # Their files have no name, so that nothing is left of them when the process ends, however it ends.
        parts = [stack.enter_context(TemporaryFile(dir=scratch)) for _ in range(-(-rows // _PART_ROWS))]
        sinks = {name: stack.enter_context(TemporaryFile(dir=scratch)) for name in _ARRAYS}
        users, tracks = _distribute(shards, parts, progress, total=2 * rows)
        counts, duplicates = np.zeros(len(users), np.int64), 0
        for part in parts:
            listens, repeated = _in_order(_rows_of(part))
            part.close()
            duplicates += repeated
            signal = rule.signals(listens["kind"], listens["played"], listens["duration"])
            says = signal != Signal.NONE
            counts += np.bincount(listens["user"][says], minlength=len(users))
            for name, content in (("track", listens["track"]), ("at", listens["at"]), ("signal", signal)):
                _append(sinks[name], content[says].astype(_ARRAYS[name]))
        _check_counts(where, rows, duplicates=duplicates, listens=int(counts.sum()))
        arrays: dict[str, Any] = {name: _mapped(sink, _ARRAYS[name]) for name, sink in sinks.items()}
    offsets = np.concatenate([[0], np.cumsum(counts)])
    digest = hashlib.sha256(msgspec.json.encode([users.to_list(), tracks.to_list()]))
    for array in (offsets, *arrays.values()):
        digest.update(array.data)
    return InteractionLog(
        where=where,
        users=users,
        tracks=tracks,
        offsets=offsets,
        rows=rows,
        duplicates=duplicates,
        fingerprint=digest.hexdigest()[:12],
        **arrays,
    )


def _distribute(
    shards: Sequence[Shard], parts: Sequence[IO[bytes]], progress: Progress, *, total: int
) -> tuple[pl.Series, pl.Series]:
    """The ids of users and tracks; the rows of each range of users go to a part."""
    task = progress.add_task("Reading the log", total=total)
    users, tracks = _ids(shards, progress, task)
    codes = {"users": pl.Enum(users), "tracks": pl.Enum(tracks)}
    for shard in shards:
        for batch in shard.batches():
            listens = _rows(batch, shard.path, **codes)
            place = listens["user"].astype(np.int64) * len(parts) // max(1, len(users))
            for number, part in enumerate(parts):
                _append(part, listens[place == number])
            progress.advance(task, len(batch))
    return users, tracks


def _append(sink: IO[bytes], array: NDArray[Any]) -> None:
    sink.write(array.view(np.uint8).data)


def _rows_of(part: IO[bytes]) -> NDArray[Any]:
    part.seek(0)
    return np.fromfile(part, _ROW)


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


def _ids(shards: Sequence[Shard], progress: Progress, task: TaskID) -> tuple[pl.Series, pl.Series]:
    """The ids of users and tracks in the order of their bytes."""
    ids = {"user_id": pl.Series(dtype=pl.String), "track_id": pl.Series(dtype=pl.String)}
    for shard in shards:
        for batch in shard.batches(tuple(ids)):
            for name, column in batch.to_dict().items():
                new = column.cast(pl.String).unique()
                size = new.str.len_bytes()
                if new.null_count() or size.min() == 0 or int(size.max() or 0) > MAX_ID_BYTES:  # type: ignore[arg-type]
                    raise SettingsError(
                        f"{shard.path}: column {name} has ids that are missing, empty or over {MAX_ID_BYTES} bytes; "
                        "drop those rows"
                    )
                ids[name] = pl.concat([ids[name], new]).unique()
            progress.advance(task, len(batch))
    users, tracks = (of_column.sort() for of_column in ids.values())
    return users, tracks


def _rows(batch: pl.DataFrame, path: str, *, users: pl.Enum, tracks: pl.Enum) -> NDArray[Any]:
    """(rows,) of _ROW, in any order. Raises SettingsError for values that cannot be right."""
    rows = np.empty(len(batch), _ROW)
    for field, name, kind in (("user", "user_id", users), ("track", "track_id", tracks)):
        rows[field] = batch[name].cast(pl.String).cast(kind).to_physical().to_numpy()
    rows["at"] = _times(batch["at"], path)
    kinds = batch["kind"].cast(pl.String) if "kind" in batch.columns else pl.Series([None], dtype=pl.String)
    if unknown := set(kinds.unique().drop_nulls()) - set(KINDS):
        raise SettingsError(f"{path}: kind {min(unknown)!r} is none of {', '.join(KINDS)}; map it to one of these")
    rows["kind"] = kinds.cast(pl.Enum(KINDS)).to_physical().fill_null(KINDS.index("play")).to_numpy()
    for field, name in (("played", "played_ms"), ("duration", "duration_ms")):
        length = batch[name] if name in batch.columns else pl.Series([None], dtype=pl.Int64)
        for strange in (length.min(), length.max()):
            if strange is not None and not 0 <= int(strange) <= _LATEST_MS:  # type: ignore[arg-type]
                raise SettingsError(f"{path}: column {name} has the value {strange}; a length is 0 ms or more, or null")
        rows[field] = length.cast(pl.Int64).fill_null(-1).to_numpy()
    return rows


def _times(column: pl.Series, path: str) -> NDArray[np.int64]:
    if column.null_count():
        raise SettingsError(f"{path}: column at is empty in {column.null_count()} rows; drop them")
    shown, anew = column, "at is in milliseconds, UTC"
    mend = "divide nanoseconds by 1,000,000 and microseconds by 1,000"
    if column.dtype.is_temporal():
        column, shown = column.dt.epoch("ms"), column.dt.strftime("%Y-%m-%d")
        anew, mend = "read them with their unit, and cast them again", "drop or mend those rows"
    first, last = (shown[place] for place in (column.arg_min(), column.arg_max()) if place is not None)
    if column.is_between(*_LIKELY_SECONDS, closed="left").any():
        raise SettingsError(f"{path}: times from {first} to {last} look like seconds; {anew}")
    if column.min() < 0 or column.max() > _LATEST_MS:  # type: ignore[operator]
        raise SettingsError(f"{path}: times from {first} to {last} are no milliseconds since 1970; {mend}")
    return column.to_numpy()


def _in_order(rows: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Rows in the order of users and their histories, without those that come again, and how many came again."""
    rows = rows[np.lexsort([np.maximum(rows[name], 0) for name in reversed(_ROW.names or ())])]
    again = np.zeros(len(rows), bool)
    again[1:] = rows[1:] == rows[:-1]
    return rows[~again], int(again.sum())
