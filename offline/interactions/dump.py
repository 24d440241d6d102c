"""`tastewave-offline dump`: the listens on Kafka as Parquet files of an interaction log, each event once.

The topics tastewave.forgotten and tastewave.tracks.corrected are dumped in the same way.

A file's name says which offsets of which partition it covers: the first one, and the one after the last. A dump reads
only offsets that no file covers, and a file gets its name when it is whole and on the disk. So another run neither
loses nor doubles an event, whatever its range and however the run before it ended. Offsets of compacted records, of
transaction markers and of aborted transactions hold no event; they are covered like the others.

Events that do not decode stand, with reasons, in a file of JSON lines beside the Parquet file. The Parquet file gets
its name after that file. Nothing in the folder but the Parquet files is read as a part of the log.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from kafka.structs import TopicPartition
from msgspec import Meta

from models.contract import LISTENS
from models.errors import SettingsError
from offline.files import locked, writing
from offline.interactions.dump_folder import Span, check_topic_id, gaps, held, other_topic, publish, tidy
from offline.interactions.dump_kafka import Cluster, KafkaArguments, Offsets
from offline.interactions.dump_processes import MOST_READERS, Dropped, Progress, read_side_by_side
from offline.progress import progress_bar

_Number = Annotated[int, Meta(ge=0)]


class Dump(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to dump, and from where.

    Raises:
        SettingsError: the range begins twice, ends twice, or ends before it begins.
    """

    out: Annotated[str, Meta(description="Folder of the Parquet files; made where it is missing.")]

    brokers: Annotated[str, Meta(description="host:port, comma separated.")] = "127.0.0.1:9092"

    topic: Annotated[
        str,
        Meta(
            description="Its whole name, with the prefix where there is one. Where it ends in tastewave.forgotten or "
            "tastewave.tracks.corrected, it is dumped as what it is."
        ),
    ] = LISTENS

    partitions: Annotated[
        tuple[_Number, ...], Meta(description="These partitions alone; all of them when none is given.")
    ] = ()

    from_time_ms: Annotated[
        int | None,
        Meta(
            description="Begin with the first record that Kafka dates so or later. The option takes ISO 8601, UTC "
            "where it names no zone; the setting takes ms since 1970."
        ),
    ] = None

    to_time_ms: Annotated[
        int | None, Meta(description="End before the first record that Kafka dates so or later; written likewise.")
    ] = None

    from_offset: Annotated[_Number | None, Meta(description="Begin with this offset of each partition.")] = None

    to_offset: Annotated[_Number | None, Meta(description="End before this offset of each partition.")] = None

    client: Annotated[
        KafkaArguments, Meta(description="kafka-python's security_protocol, sasl_... and ssl_... arguments.")
    ] = KafkaArguments()

    events_per_file: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="At most, malformed ones included. A file is in memory until it is whole: 50 to 100 bytes for "
            f"an event. So many files at a time as there are partitions and cores, at most {MOST_READERS}.",
        ),
    ] = 1_000_000

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
class Outcome:
    """What a dump added to its folder.

    Attributes:
        out: the folder.
        events, malformed, files: how many came to it.
        dropped: in words, which offsets Kafka does not hold any more.
    """

    out: Path
    events: int
    malformed: int
    files: int
    dropped: tuple[str, ...]

    def lines(self) -> list[str]:
        """What the command prints."""
        lines = [f"{self.events:,} events in {self.files:,} new files in {self.out}"]
        if not self.files:
            lines = [f"nothing new: {self.out} covers every event of the range that Kafka holds"]
        if self.malformed:
            lines.append(f"{self.malformed:,} malformed events besides, with reasons, in {self.out}/malformed-*.jsonl")
        if self.dropped:
            lines.append(f"Kafka does not hold any more (retention), nor does {self.out}: {', '.join(self.dropped)}")
        return lines


def run(settings: Dump) -> Outcome:
    """Add the listens of a range to a folder, as far as they are not there.

    Raises:
        DumpFailed: Kafka is away or has no such topic, or the folder holds another topic of that name.
        SettingsError: the folder cannot be written, or another dump is writing to it.
    """
    folder, cluster = Path(settings.out), Cluster(settings.brokers, settings.client)
    places, topic_id = cluster.find_topic(settings.topic, partitions=settings.partitions)
    with writing(folder, ": what has its name there is whole"), locked(folder), progress_bar() as progress:
        tidy(folder)
        files = held(folder, settings.topic)
        check_topic_id(files, topic_id)
        with cluster.consumer() as consumer:
            todo, dropped = _plan(settings, Offsets(consumer, places), places, files)
        total = sum(span.end - span.first for spans in todo.values() for span in spans)
        task = progress.add_task("Dumping", total=total)
        events = malformed = written = 0
        reading = read_side_by_side(cluster, todo, events_per_file=settings.events_per_file, topic_id=topic_id)
        with contextlib.closing(reading):
            for found in reading:
                if isinstance(found, Progress):
                    progress.advance(task, found.offsets)
                elif isinstance(found, Dropped):
                    dropped.append(_in_words(found.place, found.span))
                else:
                    publish(folder, found)
                    events, malformed, written = events + found.events, malformed + found.malformed, written + 1
    return Outcome(out=folder, events=events, malformed=malformed, files=written, dropped=tuple(dropped))


def time_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO-8601 time, UTC where it names no zone.

    Example:
        >>> time_ms("2026-11-01T12:00:00+01:00")
        1793530800000

    Raises:
        SettingsError: it is no such time.
    """
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is no ISO-8601 time; write 2026-11-01 or 2026-11-01T12:00:00+01:00") from None
    at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
    return max(0, (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(milliseconds=1))


def _plan(
    settings: Dump,
    offsets: Offsets,
    places: Sequence[TopicPartition],
    files: Mapping[int, Mapping[Span, Path]],
) -> tuple[dict[TopicPartition, list[Span]], list[str]]:
    """What to read of each partition, and in words what of the range neither Kafka nor the folder holds."""
    ends = offsets.ends
    firsts = _edges(offsets, settings.from_time_ms, settings.from_offset, default=dict.fromkeys(places, 0))
    lasts = _edges(offsets, settings.to_time_ms, settings.to_offset, default=ends)
    todo: dict[TopicPartition, list[Span]] = {}
    dropped: list[str] = []
    for place in places:
        known = files.get(place.partition, {})
        for span, path in known.items():
            if span.end > ends[place]:
                raise other_topic(path, f"partition {place.partition} ends at offset {ends[place]}")
        begin, first, end = offsets.begins[place], firsts[place], min(lasts[place], ends[place])
        todo[place] = gaps(Span(max(first, begin), end), known)
        dropped += [_in_words(place, span) for span in gaps(Span(first, min(begin, end)), known)]
        if settings.from_time_ms is not None and 0 < begin == first and gaps(Span(begin - 1, begin), known):
            dropped.append(f"what stood before offset {begin} of partition {place.partition}, perhaps of that time")
    return todo, dropped


def _edges(
    offsets: Offsets, at_ms: int | None, offset: int | None, *, default: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The offset at which a range begins or ends in each partition."""
    if at_ms is not None:
        return offsets.at(at_ms)
    return default if offset is None else dict.fromkeys(default, offset)


def _in_words(place: TopicPartition, span: Span) -> str:
    return f"offsets {span.first} to {span.end - 1} of partition {place.partition}"
