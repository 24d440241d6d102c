"""Records whose header names are not UTF-8, which Kafka takes from any producer and kafka-python raises on."""

from __future__ import annotations

from typing import Any

from kafka.record import default_records, memory_records


def read_all_header_names() -> None:
    """Have the consumers of this process read every header name; bytes that are not UTF-8 are written as \\xe9.

    kafka-python has no other place for it: it makes what reads a batch by this name.
    """
    memory_records.DefaultRecordBatch = _Batch  # pyright: ignore[reportAttributeAccessIssue]


_DefaultRecordBatch: Any = default_records.DefaultRecordBatch  # the bundled stubs are of an older kafka-python


class _Batch(_DefaultRecordBatch):
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
