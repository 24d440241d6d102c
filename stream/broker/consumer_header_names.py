"""Records whose header names are not UTF-8, for the consumers of workers.

aiokafka raises on such a name, which Kafka takes from any producer. One record of a stranger would end every worker,
again at each start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from stream.broker.decodable_bytes import DecodableBytes

_MAGIC_WITH_HEADERS = 2


def read_all_header_names() -> None:
    """Have the consumers of this process read every header name; bytes that are not UTF-8 are written as \\xe9.

    aiokafka has no other place for it: the fetcher makes what reads the bytes of a fetch by this name.
    """
    fetcher.MemoryRecords = _Records


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
        self._buffer = DecodableBytes(self._buffer)
