"""`tastewave-offline dump`: the listens on Kafka as Parquet files of an interaction log, each event once.

A file's name says which offsets of which partition it covers: the first one, and the one after the last. Only
offsets that no file covers are read, and a file gets its name when it is whole and on disk; so another run, of
whatever range and after whatever end of the one before, neither loses nor doubles an event. Offsets of compacted
records, of transaction markers and of aborted transactions hold no event, and are covered like the others.

Events that do not decode stand, with reasons, in a file of JSON lines beside it, which is there before the Parquet
file is. Nothing of it but the Parquet files is read as a part of the log.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import (
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    NoError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
    for_code,
)
from kafka.structs import TopicPartition

from models.contract import LISTENS
from models.errors import EventError, SettingsError, TastewaveError
from models.events import Listen, decode_event
from offline.files import sync
from offline.progress import progress_bar

COLUMNS = pa.schema(
    [
        ("user_id", pa.string()),
        ("track_id", pa.string()),
        ("at", pa.int64()),
        ("event_id", pa.string()),
        ("kind", pa.string()),
        ("played_ms", pa.int64()),
        ("duration_ms", pa.int64()),
    ]
)
MAX_VALUE_BYTES = 4096
_MAX_MESSAGE = 1000  # letters
_MAX_MALFORMED_BYTES = 64 * 2**20  # of a side file; it is in memory until the file is whole
_ROW_GROUP = 65_536
_POLL = 10_000
_FETCH_BYTES = 8 * 2**20
_BOOTSTRAP_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 30.0
_LOCK = ".dump.lock"
_DRAFT = re.compile(r"\.(listens|malformed)-.+\.partial")
_LISTENS = re.compile(r"listens-(?P<topic>.+)-p(?P<partition>\d{5,})-(?P<first>\d{12,})-(?P<end>\d{12,})\.parquet")
_MALFORMED = re.compile(r"malformed-(.+-p\d{5,}-\d{12,}-\d{12,})\.jsonl")
_TOPIC_ID = b"tastewave.topic_id"

Client_ = TypeVar("Client_")


class DumpFailed(TastewaveError):
    """Kafka or the disk does not do what a dump needs, or the folder does not go with the topic."""


class Span(NamedTuple):
    """Offsets of a partition: from the first one to before the end."""

    first: int
    end: int


class KafkaArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What kafka-python needs for a Kafka that asks who is there; its names."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: str | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_password: str | None = None
    ssl_check_hostname: bool = True

    def __post_init__(self) -> None:
        if "SASL" in self.security_protocol:
            for name in ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"):
                if not getattr(self, name):
                    raise ValueError(f"{self.security_protocol} needs {name}")
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            if (path := getattr(self, name)) and not Path(path).is_file():
                raise ValueError(f"{name} {path} is no file")

    def redacted(self, text: str) -> str:
        """A text of somebody else's with *** for each password."""
        for password in (self.sasl_plain_password, self.ssl_password):
            if password:
                text = text.replace(password, "***")
        return text


@dataclass(frozen=True, kw_only=True)
class DumpConfig:
    """What to dump, and from where.

    Raises:
        SettingsError: the range begins twice, ends twice, or ends before it begins.
    """

    brokers: str = "127.0.0.1:9092"
    """host:port, comma separated."""

    topic: str = LISTENS
    """Its whole name, with the prefix where there is one."""

    partitions: tuple[int, ...] = ()
    """All when empty."""

    from_time_ms: int | None = None
    to_time_ms: int | None = None
    """From the first record that Kafka dates so or later, to before the first of to_time_ms or later. With neither
    this nor an offset, from the first record on and to the last that is there when the dump starts."""

    from_offset: int | None = None
    to_offset: int | None = None
    """The same in each partition; to before to_offset."""

    client: KafkaArguments = field(default_factory=KafkaArguments)

    events_per_file: int = 1_000_000
    """Malformed ones count too. A file is in memory until it is whole: 50 to 100 bytes for an event."""

    def __post_init__(self) -> None:
        for name, at, offset in (
            ("from", self.from_time_ms, self.from_offset),
            ("to", self.to_time_ms, self.to_offset),
        ):
            if at is not None and offset is not None:
                raise SettingsError(f"the range has both --{name}-time and --{name}-offset; give one of them")
        for name, first, end in (
            ("time", self.from_time_ms, self.to_time_ms),
            ("offset", self.from_offset, self.to_offset),
        ):
            if first is not None and end is not None and first >= end:
                raise SettingsError(f"--from-{name} is not before --to-{name}; the end of a range is not a part of it")


@dataclass(frozen=True, kw_only=True)
class Dumped:
    """What a dump added to its folder; `dropped` says in words what Kafka does not hold any more."""

    events: int
    malformed: int
    files: int
    dropped: tuple[str, ...]

    def lines(self, folder: Path) -> list[str]:
        """The same for people."""
        lines = [f"{self.events:,} events in {self.files:,} new files in {folder}"]
        if not self.files:
            lines = [f"nothing new: {folder} covers every event of the range that Kafka holds"]
        if self.malformed:
            lines.append(f"{self.malformed:,} malformed events besides, with reasons, in {folder}/malformed-*.jsonl")
        if self.dropped:
            lines.append(f"Kafka does not hold any more (retention), nor does {folder}: {', '.join(self.dropped)}")
        return lines


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
        """Up to `most` further records, and the offset that comes next; at least one of them goes on."""
        ...


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """A file of the log in memory, with what was malformed of its offsets as JSON lines."""

    topic: str
    partition: int
    span: Span
    events: int
    malformed: int
    parquet: pa.Buffer
    lines: bytes

    @property
    def stem(self) -> str:
        """The part of the names that both files share."""
        return f"{self.topic}-p{self.partition:05d}-{self.span.first:012d}-{self.span.end:012d}"


def dump_listens(folder: Path, config: DumpConfig) -> Dumped:
    """Add the listens of a range to a folder, as far as they are not there.

    Raises:
        DumpFailed: Kafka is away or has no such topic, the folder cannot be written, is written by another dump, or
            holds another topic of that name.
    """
    places, topic_id = _find_topic(config)
    with _client(KafkaConsumer, config, **_READING) as consumer, _locked(folder), progress_bar() as progress:
        tidy(folder)
        files = held(folder, config.topic)
        _check_topic_id(files, topic_id)
        todo, dropped = _plan(consumer, config, places, files)
        total = sum(span.end - span.first for spans in todo.values() for span in spans)
        task = progress.add_task("Dumping", total=total)
        events = malformed = written = 0
        for place, spans in todo.items():
            for span in spans:
                source = _Partition(consumer, place, span.first)
                for file in log_files(
                    source,
                    topic=config.topic,
                    partition=place.partition,
                    span=span,
                    events_per_file=config.events_per_file,
                    topic_id=topic_id,
                    advance=lambda offsets: progress.advance(task, offsets),
                ):
                    publish(folder, file)
                    events, malformed, written = events + file.events, malformed + file.malformed, written + 1
                dropped += [_offsets(place.partition, gone) for gone in source.dropped]
    return Dumped(events=events, malformed=malformed, files=written, dropped=tuple(dropped))


def time_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO-8601 time, UTC where it names no zone. Raises SettingsError."""
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is no ISO-8601 time; write 2026-11-01 or 2026-11-01T12:00:00+01:00") from None
    at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
    return max(0, (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(milliseconds=1))


# --- the folder


def gaps(wanted: Span, covered: Iterable[Span]) -> list[Span]:
    """The parts of a span that none of the others covers, in order."""
    found, first = [], wanted.first
    for span in sorted(covered):
        if first < min(span.first, wanted.end):
            found.append(Span(first, min(span.first, wanted.end)))
        first = max(first, span.end)
    if first < wanted.end:
        found.append(Span(first, wanted.end))
    return found


def held(folder: Path, topic: str) -> dict[int, dict[Span, Path]]:
    """The files of a topic in a folder by partition and offsets, in order. Raises DumpFailed where two overlap."""
    with _on_disk(folder):
        names = sorted(path.name for path in folder.iterdir())
    found: dict[int, dict[Span, Path]] = {}
    for name in names:
        if (match := _LISTENS.fullmatch(name)) and match["topic"] == topic:
            span = Span(int(match["first"]), int(match["end"]))
            found.setdefault(int(match["partition"]), {})[span] = folder / name
    for partition, files in found.items():
        ordered = found[partition] = dict(sorted(files.items()))
        spans = list(ordered)
        for before, after in pairwise(spans):
            if after.first < before.end:
                raise DumpFailed(
                    f"{ordered[before]} and {ordered[after].name} cover the same offsets, so that events are doubled; "
                    "remove one of them with its malformed-*.jsonl, and run this again"
                )
    return found


def tidy(folder: Path) -> None:
    """Remove what killed dumps left: files without their final name, and side files without a Parquet file."""
    with _on_disk(folder):
        names = {path.name for path in folder.iterdir()}
        for name in names:
            side = _MALFORMED.fullmatch(name)
            if _DRAFT.fullmatch(name) or (side and f"listens-{side[1]}.parquet" not in names):
                (folder / name).unlink()


def publish(folder: Path, file: LogFile) -> None:
    """Write a file and its side file to disk, and only then give them their names, the Parquet file's last."""
    contents = {f"malformed-{file.stem}.jsonl": file.lines, f"listens-{file.stem}.parquet": file.parquet}
    contents = {folder / name: content for name, content in contents.items() if len(content)}
    drafts = {path: path.with_name(f".{path.name}.partial") for path in contents}
    with _on_disk(folder):
        try:
            for path, content in contents.items():
                with drafts[path].open("wb") as draft:
                    draft.write(content)
                    draft.flush()
                    os.fsync(draft.fileno())
            for path, draft in drafts.items():
                draft.rename(path)
                sync(folder)
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DumpFailed(
            f"{folder} cannot be written ({error.strerror or error}); make room or mend it, and run this again: "
            "what has its name there is whole"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for this process alone."""
    with contextlib.ExitStack() as stack:
        with _on_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / _LOCK).open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DumpFailed(
                    f"another dump writes to {folder}; wait for its end, or dump to another folder"
                ) from None
        yield


def _check_topic_id(files: Mapping[int, Mapping[Span, Path]], topic_id: str) -> None:
    """Whether the last file of each partition is of this topic, and not of another that had its name."""
    for path in (list(spans.values())[-1] for spans in files.values()):
        try:
            found = (pq.read_schema(path).metadata or {}).get(_TOPIC_ID, b"").decode()
        except (OSError, pa.ArrowInvalid) as error:
            raise DumpFailed(f"{path} cannot be read ({error}); mend or remove it, and run this again") from error
        if topic_id and found and found != topic_id:
            raise _other_topic(path, f"the topic had the id {found} there and has {topic_id} here")


def _other_topic(path: Path, why: str) -> DumpFailed:
    return DumpFailed(
        f"{path} was not dumped from this topic, which was made anew or lies in another cluster ({why}); "
        "dump to another folder, and name both as the log"
    )


# --- records to files


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
        advance: hears how many offsets further it is.
    """
    while span.first < span.end:
        content = _Content(partition, topic_id)
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

    def __init__(self, partition: int, topic_id: str) -> None:
        self.count = 0
        self._partition, self._lines, self._malformed = partition, bytearray(), 0
        self._rows: list[Listen] = []
        self._sink = pa.BufferOutputStream()
        self._schema = COLUMNS.with_metadata({_TOPIC_ID: topic_id})
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def takes(self, events_per_file: int) -> bool:
        return self.count < events_per_file and len(self._lines) < _MAX_MALFORMED_BYTES

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.count += 1
            try:
                self._rows.append(decode_event(record.value, Listen))
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
    """A line of the side file: where the record stands, Kafka's time of it, what is wrong, and its value in base64.

    A value is cut after 4 KiB, and then `truncated` is true; a record without any has null.
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


# --- Kafka


_READING: dict[str, Any] = {
    "auto_offset_reset": "none",  # what is not there any more is said, not passed over
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "allow_auto_create_topics": False,
    "max_partition_fetch_bytes": _FETCH_BYTES,
    "metrics_enabled": False,
}


class _Partition:
    """Reads a partition from an offset on; `dropped` is what retention took away before it was read."""

    def __init__(self, consumer: Any, place: TopicPartition, first: int) -> None:
        self._consumer, self._place, self._position = consumer, place, first
        self.dropped: list[Span] = []
        consumer.assign([place])
        consumer.seek(place, first)

    def read(self, most: int) -> tuple[Iterable[Record], int]:
        deadline, before = time.monotonic() + _READ_TIMEOUT_S, self._position
        while time.monotonic() < deadline:
            try:
                records = self._consumer.poll(timeout_ms=500, max_records=most).get(self._place, [])
            except OffsetOutOfRangeError:
                records = []
                self._skip_dropped()
            else:
                self._position = self._consumer.position(self._place) or 0
            if self._position > before:
                return records, self._position
        raise KafkaTimeoutError(
            f"nothing came for {_READ_TIMEOUT_S:.0f} s at offset {before} of partition {self._place.partition}"
        )

    def _skip_dropped(self) -> None:
        begin = self._consumer.beginning_offsets([self._place])[self._place]
        if begin <= self._position:
            raise DumpFailed(
                f"Kafka has lost the records of {self._place.topic} from offset {self._position} of partition "
                f"{self._place.partition} on while they were read: the topic was made anew, or a broker lost its "
                "disk; run this again"
            )
        self.dropped.append(Span(self._position, begin))
        self._position = begin
        self._consumer.seek(self._place, begin)


@contextlib.contextmanager
def _client(kind: Callable[..., Client_], config: DumpConfig, **options: Any) -> Iterator[Client_]:
    """A client, closed at the end. Raises DumpFailed when Kafka does not answer, or fails inside the block."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it logs what it raises, and each try
    arguments = {name: value for name, value in msgspec.structs.asdict(config.client).items() if value is not None}
    try:
        client: Any = kind(
            bootstrap_servers=[broker.strip() for broker in config.brokers.split(",")],
            client_id="tastewave-offline",
            bootstrap_timeout_ms=int(_BOOTSTRAP_TIMEOUT_S * 1000),
            **arguments,
            **options,
        )
    except (KafkaError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise _unusable(config, error) from error
    with contextlib.closing(client):
        try:
            yield client
        except UnsupportedCodecError as error:
            raise DumpFailed(
                f"the records are compressed in a way that cannot be read here ({error}); install lz4, python-snappy "
                "or zstandard, and run this again"
            ) from error
        except KafkaError as error:
            raise _unusable(config, error) from error


def _unusable(config: DumpConfig, error: Exception) -> DumpFailed:
    why = " ".join(config.client.redacted(str(error)).split()) or type(error).__name__
    return DumpFailed(
        f"Kafka at {config.brokers} cannot be used ({why}); check that it runs, --brokers and --client-config"
    )


def _find_topic(config: DumpConfig) -> tuple[list[TopicPartition], str]:
    """The partitions to dump, and the topic's id ("" where Kafka gives none)."""
    with _client(KafkaAdminClient, config) as admin:
        (topic,) = admin.describe_topics([config.topic])
        error = for_code(topic["error_code"])
        if error in (UnknownTopicOrPartitionError, InvalidTopicError):
            raise DumpFailed(
                f"Kafka at {config.brokers} has no topic {config.topic}; name it with --topic, prefix and all"
            )
        if error is not NoError:
            raise error
    there = sorted(partition["partition_index"] for partition in topic["partitions"])
    if missing := sorted(set(config.partitions) - set(there)):
        raise DumpFailed(f"{config.topic} has the partitions 0 to {there[-1]}, and no {missing[0]}; see --partition")
    topic_id = topic.get("topic_id")
    wanted = config.partitions or there
    return [TopicPartition(config.topic, number) for number in there if number in wanted], str(topic_id or "")


def _plan(
    consumer: Any,
    config: DumpConfig,
    places: list[TopicPartition],
    files: Mapping[int, Mapping[Span, Path]],
) -> tuple[dict[TopicPartition, list[Span]], list[str]]:
    """What to read of each partition, and in words what of the range is neither on Kafka any more nor covered."""
    begins = consumer.beginning_offsets(places, timeout_ms=int(_ANSWER_TIMEOUT_S * 1000))
    ends = consumer.end_offsets(places, timeout_ms=int(_ANSWER_TIMEOUT_S * 1000))
    firsts = _edges(consumer, config.from_time_ms, config.from_offset, dict.fromkeys(places, 0), ends)
    lasts = _edges(consumer, config.to_time_ms, config.to_offset, ends, ends)
    todo: dict[TopicPartition, list[Span]] = {}
    dropped: list[str] = []
    for place in places:
        known = files.get(place.partition, {})
        for span, path in known.items():
            if span.end > ends[place]:
                raise _other_topic(path, f"partition {place.partition} ends at offset {ends[place]}")
        begin, first, end = begins[place], firsts[place], min(lasts[place], ends[place])
        todo[place] = gaps(Span(max(first, begin), end), known)
        dropped += [_offsets(place.partition, span) for span in gaps(Span(first, min(begin, end)), known)]
        if config.from_time_ms is not None and 0 < begin == first and gaps(Span(begin - 1, begin), known):
            dropped.append(f"what stood before offset {begin} of partition {place.partition}, perhaps of that time")
    return todo, dropped


def _edges(
    consumer: Any,
    at_ms: int | None,
    offset: int | None,
    default: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """The offset at which a range begins or ends in each partition."""
    if at_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(ends, at_ms), timeout_ms=int(_ANSWER_TIMEOUT_S * 1000))
        return {place: found[place].offset if found[place] else ends[place] for place in ends}
    return default if offset is None else dict.fromkeys(ends, offset)


def _offsets(partition: int, span: Span) -> str:
    return f"offsets {span.first} to {span.end - 1} of partition {partition}"
