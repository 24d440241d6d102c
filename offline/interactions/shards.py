"""The Parquet files of an interaction log: which ones a path means, what is left out, and how one is read in pieces."""

from __future__ import annotations

import glob
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from models.errors import SettingsError

Content = Literal["text", "milliseconds", "a time", "true or false"]
REQUIRED: dict[str, Content] = {"user_id": "text", "track_id": "text", "at": "a time"}
"""The columns that a log has, and what they hold."""
OPTIONAL: dict[str, Content] = {
    "kind": "text",
    "played_ms": "milliseconds",
    "duration_ms": "milliseconds",
    "excluded": "true or false",
}
"""The columns that it may have."""


class _Kind(NamedTuple):
    """What a column's content is in a file, in the name of a folder, and in an error."""

    fits: Callable[[pa.DataType], bool]
    parse: Callable[[str], str | int]
    dtype: type[pl.DataType]
    wanted: str


_MILLISECONDS = _Kind(pa.types.is_integer, int, pl.Int64, "an integer of milliseconds")
_KINDS: dict[Content, _Kind] = {
    "text": _Kind(lambda kind: kind in (pa.string(), pa.large_string(), pa.string_view()), str, pl.String, "text"),
    "milliseconds": _MILLISECONDS,
    "a time": _MILLISECONDS,
    "true or false": _Kind(
        pa.types.is_boolean, lambda text: {"true": True, "false": False}[text.lower()], pl.Boolean, "true or false"
    ),
}
_BATCH_ROWS = 1_000_000
_PARQUET = (".parquet", ".parq", ".pq")
_CONVERTED = {
    ".csv": ("scan_csv", ""),
    ".tsv": ("scan_csv", ', separator="\\t"'),
    ".jsonl": ("scan_ndjson", ""),
    ".ndjson": ("scan_ndjson", ""),
}
"""How polars reads the formats that a person is told to convert."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_TOLD = 3


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of a log, opened only while it is read: a log may have more than can be open at a time.

    Attributes:
        source: the fsspec file system.
        path: in it.
        rows: how many it has.
        contents: the columns that such a file may have, and what they hold.
        columns: those of them that stand in the file.
        partition: those that the names of its folders give (Hive): kind=skip/part-0.parquet.
    """

    source: Any
    path: str
    rows: int
    contents: Mapping[str, Content]
    columns: tuple[str, ...]
    partition: dict[str, str | int | None]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows in pieces, with those of the columns that there are; all of them when None.

        Raises:
            SettingsError: the file cannot be read, is damaged, or contradicts the names of its folders.
        """
        wanted = self.contents.keys() if columns is None else set(columns)
        inside = [name for name in self.columns if name in wanted]
        for rows, batch in self._read(inside or list(self.columns[:1])):
            frame = batch.select(inside)
            for name in self.partition.keys() & wanted:
                frame = self._with_partition(frame, name, rows)
            yield frame

    def _with_partition(self, frame: pl.DataFrame, name: str, rows: int) -> pl.DataFrame:
        value = self.partition[name]
        column = pl.repeat(value, rows, dtype=_KINDS[self.contents[name]].dtype, eager=True)
        if name in frame.columns and not frame[name].cast(column.dtype).eq_missing(column).all():
            raise SettingsError(
                f"{self.path}: column {name} has other values than the {name}={value} that its folder is named after; "
                "rename one of them"
            )
        return pl.DataFrame([*frame.drop(name, strict=False).get_columns(), column.alias(name)])

    def _read(self, columns: list[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """How many rows each batch has, and the batch: a frame without columns does not know."""
        try:
            with self.source.open(self.path) as opened:
                for batch in pq.ParquetFile(opened, page_checksum_verification=True).iter_batches(
                    _BATCH_ROWS, columns=columns
                ):
                    batch.validate(full=True)  # text that is no UTF-8 ends polars with a panic
                    yield len(batch), pl.DataFrame(batch)
        except Exception as error:  # every fsspec package raises errors of its own, and so does a damaged page
            raise _unreadable(self.path, error) from error


def find_shards(
    where: str, *, required: Mapping[str, Content] = REQUIRED, optional: Mapping[str, Content] = OPTIONAL
) -> tuple[list[Shard], list[str]]:
    """The files of a log in the order of their names, their columns checked, and the paths of what was left out.

    A file that is named itself is read even if it is hidden. Of a folder or glob, files and folders whose names begin
    with _ or . are left out, as everywhere in Hive's world, and files that are not named as Parquet.

    Args:
        where: a Parquet file, a folder of them, a glob, or an fsspec URL of one of these.
        required: the columns that there have to be, and what they hold.
        optional: those that there may be.

    Raises:
        SettingsError: there is no log, a file cannot be read or is no Parquet, or a column is missing or of a type
            that it cannot have.
    """
    try:
        source, root = fsspec.url_to_fs(where)
        found = _paths(source, root)
    except Exception as error:  # every fsspec package raises errors of its own
        raise SettingsError(f"{where} cannot be opened ({error}); name a Parquet file, a folder or a glob") from error
    shards = [path for path in found if _is_parquet(path) and not _is_hidden(path, root)] if found != [root] else found
    if not shards or not all(map(_is_parquet, shards)):
        raise _no_parquet(where, [path for path in found if not _is_hidden(path, root)])
    left_out = [path for path in found if path not in set(shards) and _is_told(path, root)]
    return [_checked(source, path, required, optional) for path in shards], left_out


def left_out_text(paths: Sequence[str]) -> str:
    """One sentence about the files that were left out."""
    more = f" and {len(paths) - _TOLD} more" if len(paths) > _TOLD else ""
    return (
        f"left out of the log, as they are not named as Parquet or their names begin with _ or .: "
        f"{', '.join(paths[:_TOLD])}{more}"
    )


def _paths(source: Any, root: str) -> list[str]:
    """The files that a path means, hidden ones and other kinds included; [root] for the file itself."""
    if source.isdir(root):
        return _once(source, _walk(root) if isinstance(source, LocalFileSystem) else source.find(root))
    if source.exists(root):
        return [root]
    found = source.glob(_pattern(source, root)) if any(letter in root for letter in "*?[") else []
    return _once(source, (path for one in found for path in (_paths(source, one) if source.isdir(one) else [one])))


def _once(source: Any, paths: Iterable[str]) -> list[str]:
    """The paths in order; of a file with several names on this machine the first."""
    if not isinstance(source, LocalFileSystem):
        return sorted(set(paths))
    return sorted({os.path.realpath(path): path for path in sorted(paths, reverse=True)}.values())


def _walk(root: str) -> Iterator[str]:
    """The files below a folder of this machine, through links, which fsspec does not follow; each folder once."""
    seen = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        yield from (f"{folder}/{name}" for name in files)
        folders.sort(key=lambda name: (_hides(name), name))  # a folder of two names is read by the one that shows
        below = {os.path.realpath(f"{folder}/{name}"): name for name in reversed(folders)}
        folders[:] = [name for real, name in reversed(below.items()) if real not in seen]
        seen |= below.keys()


def _hides(name: str) -> bool:
    return name[0] == "." or (name[0] == "_" and "=" not in name)


def _raise(error: OSError) -> None:
    raise error


def _pattern(source: Any, root: str) -> str:
    """A glob in which brackets of folders that are there stand for themselves."""
    parts = root.split("/")
    first = next((place for place, part in enumerate(parts) if "*" in part or "?" in part), len(parts) - 1)
    plain = "/".join(parts[:first])
    return "/".join([glob.escape(plain) if source.exists(plain) else plain, *parts[first:]])


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(_PARQUET)


def _below(path: str, root: str) -> tuple[str, ...]:
    """The names of a file and of its folders, as far as nobody named them."""
    parts, of_root = PurePosixPath(path).parts, PurePosixPath(root).parts
    same = next((n for n, (a, b) in enumerate(zip(parts, of_root, strict=False)) if a != b), len(of_root))
    return parts[same:]


def _is_hidden(path: str, root: str) -> bool:
    return any(map(_hides, _below(path, root)))


def _is_told(path: str, root: str) -> bool:
    """Whether a file that is left out may hold listens: marks such as _SUCCESS and .lock do not."""
    return _is_parquet(path) or not _is_hidden(path, root)


def _unreadable(path: str, error: Exception) -> SettingsError:
    why = " ".join(str(error).split()) or type(error).__name__
    return SettingsError(f"{path} cannot be read ({why}); mend it or leave it out")


def _no_parquet(where: str, found: list[str]) -> SettingsError:
    for path in found:
        if (ending := _ending(path)) in _CONVERTED:
            out = f"{path.removesuffix('.gz').removesuffix(ending)}.parquet"
            scan, more = _CONVERTED[ending]
            text = '{"user_id": pl.String, "track_id": pl.String}'
            code = (
                f"import polars as pl; pl.{scan}({json.dumps(path)}, schema_overrides={text}{more})"
                f".sink_parquet({json.dumps(out)})"
            )
            return SettingsError(
                f"{path} is no Parquet, which a log is made of; convert each such file, this one with "
                f"`python -c {shlex.quote(code)}`, and run this again with {out}"
            )
    return SettingsError(
        f"{where} has no Parquet file; name a file ending in {', '.join(_PARQUET)}, a folder of them, or a glob"
    )


def _ending(path: str) -> str:
    return PurePosixPath(path.removesuffix(".gz")).suffix


def _checked(source: Any, path: str, required: Mapping[str, Content], optional: Mapping[str, Content]) -> Shard:
    contents: dict[str, Content] = {**required, **optional}
    try:
        with source.open(path) as opened:
            file = pq.ParquetFile(opened)
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except pa.ArrowInvalid as error:
        raise SettingsError(f"{path} is no whole Parquet file ({error}); write it again, or leave it out") from None
    except Exception as error:
        raise _unreadable(path, error) from error
    partition = _partition(path, contents)
    if missing := [name for name in required if name not in schema.names and name not in partition]:
        raise SettingsError(
            f"{path} has no column {' and no '.join(missing)}, only {', '.join(schema.names)}; "
            f"it needs {', '.join(required)}"
        )
    _check_columns(path, schema, contents)
    return Shard(
        source=source,
        path=path,
        rows=rows,
        contents=contents,
        columns=tuple(name for name in contents if name in schema.names),
        partition=partition,
    )


def _partition(path: str, contents: Mapping[str, Content]) -> dict[str, str | int | None]:
    """The columns of a log that the names of a file's folders give."""
    values: dict[str, str | int | None] = {}
    for folder in PurePosixPath(path).parts[:-1]:
        name, equals, text = folder.partition("=")
        if not equals or name not in contents:
            continue
        kind = _KINDS[contents[name]]
        try:
            values[name] = None if text == _NO_VALUE else kind.parse(unquote(text))
        except (ValueError, KeyError):
            raise SettingsError(
                f"{path}: the folder {folder} gives {name}, which has to be {kind.wanted}; rename it"
            ) from None
    return values


def _check_columns(path: str, schema: pa.Schema, contents: Mapping[str, Content]) -> None:
    for name, content in contents.items():
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not _KINDS[content].fits(kind) and not (content == "a time" and pa.types.is_timestamp(kind)):
            raise SettingsError(f"{path}: column {name} is {kind}, and has to be {_KINDS[content].wanted}; cast it")
