"""Dead letters: records that could not be answered, on a topic of their own, with the reason in their headers."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from stream import traces

_MAX_KEY_BYTES = 4096
_MAX_MESSAGE_BYTES = 2000
_OVERHEAD_BYTES = 1024  # what Kafka adds to a record, with room to spare
_HEADER_OVERHEAD_BYTES = 10  # two lengths, as Kafka writes them

Headers = list[tuple[str, bytes | None]]
HEADERS = {
    "source_topic": "tastewave.source.topic",
    "source_partition": "tastewave.source.partition",
    "source_offset": "tastewave.source.offset",
    "reason": "tastewave.reason",
    "message": "tastewave.message",
    "attempts": "tastewave.attempts",
    "release": "tastewave.release",
    "time": "tastewave.time",
    "truncated": "tastewave.truncated",
}
"""Our header for each field of a DeadLetter. Before they had these names, they were called as the fields are."""


class Record(traces.Record, Protocol):
    """What the ConsumerRecords of kafka-python and aiokafka share."""

    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102


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
        truncated: whether the key or the value was cut, or headers were left out.
        headers: those that the record had itself.

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
    headers: tuple[tuple[str, bytes | None], ...] = ()


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
    """Key, value and headers of the dead letter for a record: its own headers as they were, then ours.

    Args:
        record: the record that could not be answered.
        reason: the code of the error, as in models.errors.
        message: what the error says; of a long one, the first 2,000 bytes.
        attempts: how often the record was tried.
        release: of this worker.
        max_bytes: max.message.bytes of the topic. Of a record that is too large for it, the first headers and the first
            bytes of the value are kept, of each what fits into half of the room or what the other leaves.
        now_ms: the time to write; the present when None.
    """
    ours: Headers = [
        (HEADERS["source_topic"], record.topic.encode()),
        (HEADERS["source_partition"], str(record.partition).encode()),
        (HEADERS["source_offset"], str(record.offset).encode()),
        (HEADERS["reason"], reason.encode()),
        (HEADERS["message"], _cut_text(message)),
        (HEADERS["attempts"], str(attempts).encode()),
        (HEADERS["release"], release.encode()),
        (HEADERS["time"], str(time.time_ns() // 1_000_000 if now_ms is None else now_ms).encode()),
    ]
    key = record.key and record.key[:_MAX_KEY_BYTES]
    room = max(0, max_bytes - len(key or b"") - sum(map(_size, ours)) - _OVERHEAD_BYTES)
    theirs = _first_headers(record.headers, room=room - min(len(record.value or b""), room // 2))
    value = record.value and record.value[: room - sum(map(_size, theirs))]
    whole = (key, value, len(theirs)) == (record.key, record.value, len(record.headers))
    # Written in any case: the record may have been a dead letter before, and have such a header itself.
    return key, value, [*theirs, *ours, (HEADERS["truncated"], b"false" if whole else b"true")]


def read_dead_letter(record: Record) -> DeadLetter:
    """Read a record of the dead-letter topic, whoever wrote it."""
    texts = {name: (text or b"").decode(errors="replace") for name, text in record.headers}
    names = HEADERS if HEADERS["reason"] in texts else {field: field for field in HEADERS}
    given = {field: texts.get(name, "") for field, name in names.items()}

    def number(field: str, default: int = -1) -> int:
        return int(given[field]) if given[field].isdecimal() and len(given[field]) < 19 else default

    return DeadLetter(
        key=record.key,
        value=record.value,
        source_topic=given["source_topic"],
        source_partition=number("source_partition"),
        source_offset=number("source_offset"),
        reason=given["reason"],
        message=given["message"],
        attempts=number("attempts"),
        release=given["release"],
        time=number("time", record.timestamp),
        truncated=given["truncated"] == "true",
        headers=_without_ours(record.headers, names=names.values()),
    )


def _first_headers(headers: Sequence[tuple[str, bytes | None]], *, room: int) -> Headers:
    """As many of the headers as fit into so many bytes."""
    first: Headers = []
    for header in headers:
        room -= _size(header)
        if room < 0:
            break
        first.append(header)
    return first


def _without_ours(
    headers: Sequence[tuple[str, bytes | None]], *, names: Collection[str]
) -> tuple[tuple[str, bytes | None], ...]:
    """The headers without the last one of each of these names, which is ours."""
    ours = set({name: place for place, (name, _) in enumerate(headers) if name in names}.values())
    return tuple(header for place, header in enumerate(headers) if place not in ours)


def _size(header: tuple[str, bytes | None]) -> int:
    name, text = header
    return len(name.encode()) + len(text or b"") + _HEADER_OVERHEAD_BYTES


def _cut_text(text: str) -> bytes:
    data = text.encode(errors="replace")
    if len(data) <= _MAX_MESSAGE_BYTES:
        return data
    return data[: _MAX_MESSAGE_BYTES - 3].decode(errors="ignore").encode() + b"..."
