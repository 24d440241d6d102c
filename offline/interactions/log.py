"""An interaction log: Parquet files of listens, read in pieces and encoded as memory-mapped arrays.

A log is a Parquet file, a folder of them, a glob, or any of these at an fsspec URL, with the columns of the listens
event: user_id, track_id, at, and where there are such kind, played_ms and duration_ms. It may be larger than
memory: two passes over row groups write one file for each range of users, and each of these is sorted by itself.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from models.errors import SettingsError
from models.events import MAX_ID_BYTES
from models.history import KINDS, CountingRule, Signal
from offline.progress import progress_bar

REQUIRED = ("user_id", "track_id", "at")
OPTIONAL = ("kind", "played_ms", "duration_ms")
_BATCH_ROWS = 1_000_000
_PART_ROWS = 4_000_000  # about what is sorted at a time
_LATEST_MS = 253_402_300_799_999
_LIKELY_SECONDS = (10**8, 10**11)  # as milliseconds these lie between January 1970 and March 1973
_COLUMNS = {"track": np.dtype("<i4"), "at": np.dtype("<i8"), "signal": np.dtype("u1")}
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
    for left in scratch.glob(".log-*") if scratch else ():  # of a job that was killed
        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=".log-", dir=scratch))
    try:
        log = _encode(where, rule or CountingRule(), folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SettingsError(f"{where} cannot be read, or {folder.parent} not be written ({error})") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(log, shutil.rmtree, folder, ignore_errors=True)
    return log


def _encode(where: str, rule: CountingRule, folder: Path) -> InteractionLog:
    files = _find(where)
    rows = sum(file.rows for file in files)
    with progress_bar() as progress:
        task = progress.add_task("Reading the log", total=2 * rows)
        users, tracks = _ids(files, progress, task)
        codes = {"users": pl.Enum(users), "tracks": pl.Enum(tracks)}
        parts = -(-rows // _PART_ROWS)
        with ExitStack() as stack:
            sinks = [stack.enter_context(_part(folder, number).open("wb")) for number in range(parts)]
            for file in files:
                for batch in file.batches(file.columns):
                    listens = _rows(batch, file.path, **codes)
                    part = listens["user"].astype(np.int64) * parts // max(1, len(users))
                    for number, sink in enumerate(sinks):
                        listens[part == number].tofile(sink)
                    progress.advance(task, len(batch))
    counts, duplicates = np.zeros(len(users), np.int64), 0
    digest = hashlib.sha256(msgspec.json.encode([users.to_list(), tracks.to_list()]))
    with ExitStack() as stack:
        sinks = {name: stack.enter_context((folder / name).open("wb")) for name in _COLUMNS}
        for number in range(parts):
            listens, repeated = _in_order(np.fromfile(_part(folder, number), _ROW))
            _part(folder, number).unlink()
            duplicates += repeated
            signal = rule.signals(listens["kind"], listens["played"], listens["duration"])
            says = signal != Signal.NONE
            counts += np.bincount(listens["user"][says], minlength=len(users))
            for name, content in (("track", listens["track"]), ("at", listens["at"]), ("signal", signal)):
                content[says].astype(_COLUMNS[name]).tofile(sinks[name])
    if not counts.any():
        raise SettingsError(f"{where} holds no listen that says anything; name a log with plays or likes")
    arrays: dict[str, Any] = {name: np.memmap(folder / name, kind, mode="r") for name, kind in _COLUMNS.items()}
    offsets = np.concatenate([[0], np.cumsum(counts)])
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


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number}"


class _File(NamedTuple):
    """A file of the log, opened only while it is read: a log may have more than can be open at a time."""

    source: Any
    path: str
    rows: int
    columns: list[str]

    def batches(self, columns: list[str]) -> Iterator[pl.DataFrame]:
        with self.source.open(self.path) as opened:
            for batch in pq.ParquetFile(opened).iter_batches(_BATCH_ROWS, columns=columns):
                yield pl.DataFrame(batch)


def _find(where: str) -> list[_File]:
    """The files of a log, their columns checked."""
    try:
        source, root = fsspec.url_to_fs(where)
        if source.isdir(root):
            paths = source.find(root)
        else:
            paths = source.glob(root) if any(letter in root for letter in "*?[") else [root] * source.exists(root)
    except OSError:
        raise
    except Exception as error:  # every fsspec package raises errors of its own
        raise SettingsError(f"{where} cannot be opened ({error}); name a Parquet file, a folder or a glob") from error
    paths = sorted(path for path in paths if path.endswith(".parquet") and not Path(path).name.startswith((".", "_")))
    if not paths:
        raise SettingsError(f"{where} has no Parquet file; name a .parquet file, a folder of them, or a glob")
    return [_checked(source, path) for path in paths]


def _checked(source: Any, path: str) -> _File:
    try:
        with source.open(path) as opened:
            file = pq.ParquetFile(opened)
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except pa.ArrowInvalid as error:
        raise SettingsError(f"{path} is no whole Parquet file ({error}); write it again, or leave it out") from None
    _check_columns(path, schema)
    return _File(source, path, rows, [name for name in (*REQUIRED, *OPTIONAL) if name in schema.names])


def _check_columns(path: str, schema: pa.Schema) -> None:
    if missing := [name for name in REQUIRED if name not in schema.names]:
        raise SettingsError(
            f"{path} has no column {' and no '.join(missing)}, only {', '.join(schema.names)}; "
            f"a log needs {', '.join(REQUIRED)}"
        )
    for name in (*REQUIRED, *OPTIONAL):
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if name in ("user_id", "track_id", "kind"):
            fits, wanted = kind in (pa.string(), pa.large_string(), pa.string_view()), "text"
        else:
            fits, wanted = pa.types.is_integer(kind), "an integer of milliseconds"
        if not fits and not (name == "at" and pa.types.is_timestamp(kind)):
            raise SettingsError(f"{path}: column {name} is {kind}, and has to be {wanted}; cast it")


def _ids(files: list[_File], progress: Progress, task: TaskID) -> tuple[pl.Series, pl.Series]:
    """The ids of users and tracks in the order of their bytes."""
    ids = {"user_id": pl.Series(dtype=pl.String), "track_id": pl.Series(dtype=pl.String)}
    for file in files:
        for batch in file.batches(list(ids)):
            for name, column in batch.to_dict().items():
                new = column.cast(pl.String).unique()
                size = new.str.len_bytes()
                if new.null_count() or size.min() == 0 or int(size.max() or 0) > MAX_ID_BYTES:  # type: ignore[arg-type]
                    raise SettingsError(
                        f"{file.path}: column {name} has ids that are missing, empty or over {MAX_ID_BYTES} bytes; "
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
    if column.dtype.is_temporal():
        return column.dt.epoch("ms").to_numpy()
    first, last = int(column.min()), int(column.max())  # type: ignore[arg-type]
    if column.is_between(*_LIKELY_SECONDS, closed="left").any():
        raise SettingsError(f"{path}: times from {first} to {last} look like seconds; at is in milliseconds, UTC")
    if first < 0 or last > _LATEST_MS:
        raise SettingsError(
            f"{path}: times from {first} to {last} are no milliseconds since 1970; divide nanoseconds by 1,000,000 "
            "and microseconds by 1,000"
        )
    return column.to_numpy()


def _in_order(rows: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Rows in the order of users and their histories, without those that come again, and how many came again."""
    rows = rows[np.lexsort([np.maximum(rows[name], 0) for name in reversed(_ROW.names or ())])]
    again = np.zeros(len(rows), bool)
    again[1:] = rows[1:] == rows[:-1]
    return rows[~again], int(again.sum())
