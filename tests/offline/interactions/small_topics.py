"""Partitions of listens in memory, and the files that a dump makes of them."""

from typing import NamedTuple

from models.events import Listen, encode_event
from offline.interactions.dump_folder import Span
from offline.interactions.dump_parquet import log_files

TOPIC = "prod.listens"
YEAR_2023_MS = 1_700_000_000_000


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes | None


def listen(offset: int, **fields) -> Listen:
    fields = {"track_id": "t", "kind": "play", "played_ms": 3 * offset, "duration_ms": 180_000} | fields
    return Listen(event_id=f"e{offset}", user_id=f"u{offset % 7}", at=YEAR_2023_MS + offset, **fields)


def record(offset: int, *, malformed: bool = False) -> Record:
    return Record(offset, YEAR_2023_MS, b'{"event_id": 7}' if malformed else encode_event(listen(offset)))


class Topic:
    """A partition in memory; reads go beyond what was asked for, as far as its end, as those of Kafka do."""

    def __init__(self, records: list[Record], *, end: int, batch: int = 1_000_000) -> None:
        self.records, self.end, self.batch = sorted(records), end, batch

    def at(self, position: int) -> "Topic":
        self.position = position
        return self

    def read(self, most: int) -> tuple[list[Record], int]:
        found = [record for record in self.records if record.offset >= self.position]
        taken = found[: min(most, self.batch)]
        self.position = taken[-1].offset + 1 if len(taken) < len(found) else self.end
        return taken, self.position


def files_of(topic: Topic, span: Span, events_per_file: int = 100, name: str = TOPIC):
    source = topic.at(span.first)
    return log_files(source, topic=name, partition=3, span=span, events_per_file=events_per_file, topic_id="id")
