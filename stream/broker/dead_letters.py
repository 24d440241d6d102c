"""Dead letters: a record that cannot be answered, kept with its reason, and read back by operators."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from models.contract import DEAD_LETTER
from stream.settings import Settings

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

    key and value are its original bytes, cut where truncated says so; time is in milliseconds, UTC.
    Header fields that a foreign producer left out are empty or -1.
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
    """Key, value and headers of the dead letter of a record.

    The value is the original's, cut (and the header truncated = true) where the whole would exceed max_bytes,
    max.message.bytes of the topic. now_ms is the present when None.
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
    """What a record of the dead-letter topic says."""
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


def latest_dead_letters(settings: Settings, *, last: int) -> list[DeadLetter]:
    """The latest dead letters over all partitions, oldest first. Raises KafkaUnusable."""
    from kafka import KafkaConsumer

    from stream.broker.operator import kafka_client, partitions_of, records_between

    with kafka_client(
        KafkaConsumer, settings.kafka, enable_auto_commit=False, allow_auto_create_topics=False
    ) as consumer:
        partitions = partitions_of(consumer, settings.topics.named(DEAD_LETTER))
        ends = consumer.end_offsets(partitions)
        beginnings = consumer.beginning_offsets(partitions)
        starts = {place: max(beginnings[place], end - last) for place, end in ends.items()}
        letters = map(read_dead_letter, records_between(consumer, starts, ends))
        latest = heapq.nlargest(last, letters, key=lambda letter: letter.time)
    return latest[::-1]


def show_dead_letters(settings: Settings, *, last: int, as_json: bool) -> None:
    """Print the latest dead letters: a table, or a JSON line each (key and value as text). Raises KafkaUnusable."""
    import click
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    letters = latest_dead_letters(settings, last=last)
    if as_json:
        for letter in letters:
            fields = msgspec.structs.asdict(letter) | {"key": _text(letter.key), "value": _text(letter.value)}
            click.echo(msgspec.json.encode(fields))
        return
    if not letters:
        click.echo("No dead letters.")
        return
    table = Table("age", "reason", "key", "message", box=box.SIMPLE_HEAD)
    for letter in letters:
        age = _age((time.time_ns() // 1_000_000 - letter.time) / 1000)
        table.add_row(*map(Text, (age, letter.reason, _text(letter.key) or "-", letter.message)))
    Console().print(table)


def _cut_text(text: str) -> bytes:
    data = text.encode(errors="replace")
    if len(data) <= _MAX_MESSAGE_BYTES:
        return data
    return data[: _MAX_MESSAGE_BYTES - 3].decode(errors="ignore").encode() + b"..."


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")


def _age(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
