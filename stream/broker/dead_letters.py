"""Dead letters: records that could not be answered, on a topic of their own, with the reason in their headers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

_MAX_KEY_BYTES = 4096
_MAX_MESSAGE_BYTES = 2000
_OVERHEAD_BYTES = 1024  # what Kafka adds to a record, with room to spare

Headers = list[tuple[str, bytes]]


class Record(Protocol):
    """What the ConsumerRecords of kafka-python and aiokafka share."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be answered.

    Attributes:
        key, value: its original bytes; of too many, the first, and truncated is true.
        source_topic, source_partition, source_offset: where it was read.
        reason: the code of the error, as in models.errors.
        message: what the error says.
        attempts: how often it was tried.
        release: of the worker that gave it up.
        time: when that was, in milliseconds, UTC.
        truncated: whether the key or the value was cut.

    Where another producer has left out a header, its field is empty or -1 (time: that of the record).
    """

    key: bytes | None
    value: bytes | None
    source_topic: str
    source_partition: int
    source_offset: int
    reason: str
    message: str
    attempts: int
    release: str
    time: int
    truncated: bool


def dead_letter(
    record: Record,
    *,
    reason: str,
    message: str,
    attempts: int,
    release: str,
    max_bytes: int,
    now_ms: int | None = None,
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of the dead letter for a record.

    Args:
        record: the record that could not be answered.
        reason: the code of the error, as in models.errors.
        message: what the error says; of a long one, the first 2,000 bytes.
        attempts: how often the record was tried.
        release: of this worker.
        max_bytes: max.message.bytes of the topic. A larger dead letter has its value cut, and says truncated = true.
        now_ms: the time to write; the present when None.
    """
    headers: Headers = [
        ("source_topic", record.topic.encode()),
        ("source_partition", str(record.partition).encode()),
        ("source_offset", str(record.offset).encode()),
        ("reason", reason.encode()),
        ("message", _cut_text(message)),
        ("attempts", str(attempts).encode()),
        ("release", release.encode()),
        ("time", str(time.time_ns() // 1_000_000 if now_ms is None else now_ms).encode()),
    ]
    key = record.key and record.key[:_MAX_KEY_BYTES]
    taken = len(key or b"") + sum(len(name) + len(text) for name, text in headers) + _OVERHEAD_BYTES
    value = record.value and record.value[: max(0, max_bytes - taken)]
    if (key, value) != (record.key, record.value):
        headers.append(("truncated", b"true"))
    return key, value, headers


def read_dead_letter(record: Record) -> DeadLetter:
    """Read a record of the dead-letter topic, whoever wrote it."""
    texts = {name: (text or b"").decode(errors="replace") for name, text in record.headers}

    def number(name: str, default: int = -1) -> int:
        return int(text) if (text := texts.get(name, "")).isdecimal() else default

    return DeadLetter(
        key=record.key,
        value=record.value,
        source_topic=texts.get("source_topic", ""),
        source_partition=number("source_partition"),
        source_offset=number("source_offset"),
        reason=texts.get("reason", ""),
        message=texts.get("message", ""),
        attempts=number("attempts"),
        release=texts.get("release", ""),
        time=number("time", record.timestamp),
        truncated=texts.get("truncated") == "true",
    )


def _cut_text(text: str) -> bytes:
    data = text.encode(errors="replace")
    if len(data) <= _MAX_MESSAGE_BYTES:
        return data
    return data[: _MAX_MESSAGE_BYTES - 3].decode(errors="ignore").encode() + b"..."
