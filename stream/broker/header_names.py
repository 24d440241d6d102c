"""Records whose header names are not UTF-8, for commands. kafka-python raises on them, and Kafka takes them.

It imports no aiokafka, which would cost each command a tenth of a second at its start.
"""

from __future__ import annotations

from typing import Any

from kafka.record import default_records, memory_records

from stream.broker.decodable_bytes import DecodableBytes


def read_all_header_names() -> None:
    """Have the consumers of this process read every header name; bytes that are not UTF-8 are written as \\xe9.

    kafka-python has no other place for it: it makes what reads a batch by this name.
    """
    memory_records.DefaultRecordBatch = _Batch  # pyright: ignore[reportAttributeAccessIssue]


_DefaultRecordBatch: Any = default_records.DefaultRecordBatch  # the bundled stubs are of an older kafka-python


class _Batch(_DefaultRecordBatch):
    """A batch as kafka-python reads it, with names that are replaced where it cannot."""

    def _read_msg(self, *args: Any, **options: Any) -> Any:
        begin = self._pos
        try:
            return super()._read_msg(*args, **options)
        except UnicodeDecodeError:
            self._pos, self._buffer = begin, DecodableBytes(self._buffer)
            return super()._read_msg(*args, **options)
