"""Records whose header names are not UTF-8, which Kafka takes from any producer.

aiokafka and kafka-python raise on such a name. One record of a stranger would end every worker, again at each start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from kafka.record import default_records, memory_records

_MAGIC_WITH_HEADERS = 2


def read_all_header_names() -> None:
    """Have the consumers of this process read every header name; bytes that are not UTF-8 are written as \\xe9.

    The clients have no other place for it: they make what reads the bytes of a fetch by these names.
    """
    fetcher.MemoryRecords = _Records
    memory_records.DefaultRecordBatch = _OperatorBatch  # pyright: ignore[reportAttributeAccessIssue]


class _Records(_MemoryRecordsPy):  # pyright: ignore[reportGeneralTypeIssues] - it is final for type checkers alone
    """The batches in what a fetch brought from a partition."""

    def next_batch(self, *args: Any, **options: Any) -> Any:
        raw = self._next_slice
        batch: Any = super().next_batch(*args, **options)
        return _Batch(batch, raw) if raw is not None and batch.magic >= _MAGIC_WITH_HEADERS else batch


class _Batch:
    """A batch as aiokafka reads it; where it cannot, its records are read more slowly, with names that are replaced."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except (UnicodeDecodeError, CorruptRecordException):
            return iter(_PatientBatch(self._raw))  # raises the error again where that is something else


class _PatientBatch(_DefaultRecordBatchPy):  # pyright: ignore[reportGeneralTypeIssues]
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Bytes(self._buffer)


_DefaultRecordBatch: Any = default_records.DefaultRecordBatch  # the bundled stubs are of an older kafka-python


class _OperatorBatch(_DefaultRecordBatch):
    """A batch as kafka-python reads it, with names that are replaced where it cannot."""

    def _read_msg(self, *args: Any, **options: Any) -> Any:
        begin = self._pos
        try:
            return super()._read_msg(*args, **options)
        except UnicodeDecodeError:
            self._pos, self._buffer = begin, _Bytes(self._buffer)
            return super()._read_msg(*args, **options)


class _Bytes(bytearray):
    """Of which each slice can be decoded."""

    def __getitem__(self, place: Any) -> Any:
        piece = super().__getitem__(place)
        return _Bytes(piece) if isinstance(place, slice) else piece

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
