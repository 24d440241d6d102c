"""Rows of a log that may not be used: those that the platform excluded, and those of whom or what was forgotten."""

from __future__ import annotations

from dataclasses import dataclass

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import SettingsError
from models.events import Forgotten as ForgottenEvent

_COLUMNS = ForgottenEvent.__struct_fields__
_ID_OF = {"user": "user_id", "track": "track_id"}


@dataclass(frozen=True, eq=False)
class Forgotten:
    """Until when each user and each track was forgotten.

    Attributes:
        until: kind (user or track), id, forgotten_at (ms); each kind and id once.
    """

    until: pl.DataFrame

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a log that decide, besides the ids."""
        return () if self.until.is_empty() else ("at",)

    def drop(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows of a log without those that were forgotten: at or before that time, of that user or track."""
        if self.until.is_empty():
            return batch
        at = batch["at"].dt.epoch("ms") if batch["at"].dtype.is_temporal() else batch["at"]
        gone = pl.repeat(False, len(batch), eager=True)
        for kind, column in _ID_OF.items():
            until = self.until.filter(pl.col("kind") == kind)
            of_rows = batch[column].cast(pl.String).replace_strict(until["id"], until["forgotten_at"], default=-1)
            gone |= (at <= of_rows).fill_null(value=False)
        return batch.filter(~gone)


def without_excluded(batch: pl.DataFrame) -> pl.DataFrame:
    """The rows of a log that the platform did not mark as excluded."""
    if "excluded" not in batch.columns:
        return batch
    return batch.filter(~pl.col("excluded").fill_null(value=False))


def read_forgotten(where: str | None) -> Forgotten:
    """Who and what was forgotten.

    Args:
        where: a Parquet file of the events on tastewave.forgotten, a folder of them such as `tastewave-offline dump`
            writes, or an fsspec URL of one of these; nobody is forgotten when it is None.

    Raises:
        SettingsError: there is none, or it holds other columns.
    """
    frames = [_empty()] if where is None else [_read(path, source) for source, path in _find(where)]
    return Forgotten(pl.concat(frames).group_by("kind", "id").agg(pl.col("forgotten_at").max()))


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema={"kind": pl.String, "id": pl.String, "forgotten_at": pl.Int64})


def _find(where: str) -> list[tuple[fsspec.AbstractFileSystem, str]]:
    try:
        source, root = fsspec.url_to_fs(where)
        paths = sorted(source.find(root)) if source.isdir(root) else [root]
    except Exception as error:  # every fsspec package raises errors of its own
        raise SettingsError(f"{where} cannot be opened ({error}); name a dump of tastewave.forgotten") from error
    if not (found := [(source, path) for path in paths if path.endswith(".parquet")]):
        raise SettingsError(f"{where} has no Parquet file; name a dump of tastewave.forgotten")
    return found


def _read(path: str, source: fsspec.AbstractFileSystem) -> pl.DataFrame:
    try:
        with source.open(path) as opened:
            frame = pl.DataFrame(pq.read_table(opened, columns=[*_COLUMNS]))
        return frame.select(pl.col(name).cast(dtype) for name, dtype in _empty().schema.items())
    except (OSError, pa.ArrowInvalid, pl.exceptions.PolarsError) as error:
        raise SettingsError(
            f"{path} is no dump of tastewave.forgotten ({' '.join(str(error).split())}); it has the columns "
            f"{', '.join(_COLUMNS)}: dump it again"
        ) from error
