"""Records of a partition as Parquet files of an interaction log, and the lines about those that are malformed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from models.contract import FORGOTTEN, TRACKS_CORRECTED
from models.errors import EventError
from models.events import Forgotten, Listen, TrackCorrected, decode_event
from offline.interactions.dump_folder import TOPIC_ID, LogFile, Span

_LISTENS_COLUMNS = pa.schema(
    [
        ("user_id", pa.string()),
        ("track_id", pa.string()),
        ("at", pa.int64()),
        ("event_id", pa.string()),
        ("kind", pa.string()),
        ("played_ms", pa.int64()),
        ("duration_ms", pa.int64()),
        ("excluded", pa.bool_()),
    ]
)
_CORRECTED_COLUMNS = pa.schema(
    [("track_id", pa.string()), ("genre", pa.string()), ("by", pa.string()), ("at", pa.int64())]
)
_FORGOTTEN_COLUMNS = pa.schema([("kind", pa.string()), ("id", pa.string()), ("forgotten_at", pa.int64())])
MAX_VALUE_BYTES = 4096
"""Of a malformed record's value that its line keeps."""

_MAX_MESSAGE = 1000  # letters
_MAX_MALFORMED_BYTES = 64 * 2**20  # of a side file, which is in memory until the file is whole
_ROW_GROUP = 65_536
_POLL = 10_000


class Record(Protocol):
    """As kafka-python's ConsumerRecord."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102


class Source(Protocol):
    """The records of a partition from an offset on."""

    def read(self, most: int) -> tuple[Iterable[Record], int]:
        """Up to `most` further records, and the offset after what was read; it has grown since the last call."""
        ...


class _Events(NamedTuple):
    """What a topic holds: the word that names of files begin with, the struct, and the columns."""

    content: str
    kind: type[msgspec.Struct]
    columns: pa.Schema


def _events_of(topic: str) -> _Events:
    """Of the topics tastewave.forgotten and tastewave.tracks.corrected, whatever their prefix, or of listens."""
    if topic.endswith(FORGOTTEN):
        return _Events("forgotten", Forgotten, _FORGOTTEN_COLUMNS)
    if topic.endswith(TRACKS_CORRECTED):
        return _Events("corrected", TrackCorrected, _CORRECTED_COLUMNS)
    return _Events("listens", Listen, _LISTENS_COLUMNS)


def log_files(
    source: Source,
    *,
    topic: str,
    partition: int,
    span: Span,
    events_per_file: int,
    topic_id: str = "",
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[LogFile]:
    """The files that cover a span of a partition, one after the other.

    Args:
        source: stands at the first offset of the span.
        topic: its name.
        partition: its number.
        span: of offsets.
        events_per_file: at most.
        topic_id: Kafka's, "" where it gives none; kept in the files.
        advance: called after each read with the number of offsets that it covered.
    """
    while span.first < span.end:
        content = _Content(_events_of(topic), partition, topic_id)
        position = span.first
        while position < span.end and content.takes(events_per_file):
            records, reached = source.read(min(_POLL, events_per_file - content.count))
            content.add(record for record in records if record.offset < span.end)
            reached = min(reached, span.end)
            advance(reached - position)
            position = reached
        yield content.file(topic, Span(span.first, position))
        span = Span(position, span.end)


class _Content:
    """What becomes a file and its side file."""

    def __init__(self, events: _Events, partition: int, topic_id: str) -> None:
        self.count = 0
        self._events = events
        self._partition, self._lines, self._malformed = partition, bytearray(), 0
        self._rows: list[Any] = []
        self._sink = pa.BufferOutputStream()
        self._schema = events.columns.with_metadata({TOPIC_ID: topic_id})
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd", write_page_checksum=True)

    def takes(self, events_per_file: int) -> bool:
        """Whether there is room for another event."""
        return self.count < events_per_file and len(self._lines) < _MAX_MALFORMED_BYTES

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.count += 1
            try:
                self._rows.append(decode_event(record.value, self._events.kind))
            except EventError as error:
                self._malformed += 1
                self._lines += malformed_line(record, partition=self._partition, error=error)
        if len(self._rows) >= _ROW_GROUP:
            self._write()

    def file(self, topic: str, span: Span) -> LogFile:
        if self._rows:
            self._write()
        self._writer.close()
        return LogFile(
            content=self._events.content,
            topic=topic,
            partition=self._partition,
            span=span,
            events=self.count - self._malformed,
            malformed=self._malformed,
            parquet=self._sink.getvalue(),
            lines=bytes(self._lines),
        )

    def _write(self) -> None:
        """The rows as a row group."""
        arrays = [pa.array([getattr(row, field.name) for row in self._rows], field.type) for field in self._schema]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows.clear()


def malformed_line(record: Record, *, partition: int, error: EventError) -> bytes:
    """A line of the side file: the record's place and Kafka's time of it, what is wrong, and its value in base64.

    A value of more than MAX_VALUE_BYTES is cut, and `truncated` is true; the value of a record without any is null.
    """
    value = record.value
    line = {
        "partition": partition,
        "offset": record.offset,
        "time": record.timestamp,
        "reason": error.reason,
        "message": str(error)[:_MAX_MESSAGE].encode(errors="backslashreplace").decode(),
        "value": None if value is None else base64.b64encode(value[:MAX_VALUE_BYTES]).decode(),
        "truncated": len(value or b"") > MAX_VALUE_BYTES,
    }
    return msgspec.json.encode(line) + b"\n"
