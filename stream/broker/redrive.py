"""Redrive dead letters: send their events to the source topic again, as they were.

Nothing is remembered between two runs, and no letter is deleted: a run that was killed loses nothing, and is run again.
What it then sends a second time changes no answer, since answers go by (event_time, event_id) and a history holds a
listen once.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from models.contract import DEAD_LETTER, LISTENS, TRACKS_CORRECTED, TRACKS_UPLOADED
from models.errors import TastewaveError
from stream.broker.dead_letters import DeadLetter, read_dead_letter
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of, records_between
from stream.settings import Settings

log = structlog.get_logger(__name__)


class RedriveFailed(TastewaveError):
    """Kafka did not take an event that was sent again."""


class Source(NamedTuple):
    """Where the event of a letter was read: topic (as Kafka calls it, with the prefix), partition and offset."""

    topic: str
    partition: int
    offset: int


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which letters are redriven: those that meet all of it.

    Attributes:
        reason: their code, as in models.errors; any when None.
        since_ms: letters of that time or later (ms, UTC).
        sources: where their events were read; anywhere when None.
    """

    reason: str | None = None
    since_ms: int = 0
    sources: frozenset[Source] | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether a letter is among them."""
        source = Source(letter.source_topic, letter.source_partition, letter.source_offset)
        return (
            self.reason in (None, letter.reason)
            and letter.time >= self.since_ms
            and (self.sources is None or source in self.sources)
        )


class Redriven(msgspec.Struct, kw_only=True):
    """What became of the letters that were chosen.

    Attributes:
        sent: how many events Kafka has taken again, by the reason of their letter.
        repeated: further letters of an event that was sent in this run, as where it has failed again before.
        truncated: refused, since a part of their event is missing.
        foreign: refused, since they name no topic that workers read.
    """

    sent: Counter[str] = msgspec.field(default_factory=Counter)
    repeated: int = 0
    truncated: int = 0
    foreign: int = 0


def redrive(
    settings: Settings,
    choice: Choice,
    *,
    by: str,
    rate: float,
    dry_run: bool = False,
    on_read: Callable[[int, int], None] | None = None,
) -> Redriven:
    """Send the events of dead letters to their source topic again, with their keys and headers.

        redrive(load_settings(), Choice(reason="not_found"), by="ann", rate=100).sent.total()

    Letters that come after the start, as those of events that fail again, are left alone. An event goes to the
    partition where it was read, and once, however many letters it has. Two lines in the log say who does it: one before
    the first event, and one at the end, also where that is an error. A header without a value gets an empty one.

    Args:
        settings: how to reach Kafka, and how topics are named.
        choice: which letters.
        by: who asks for it, for the log.
        rate: the most events a second.
        dry_run: count what would be sent, and send nothing.
        on_read: is told how many letters were read, and how many there are. What it raises ends the run.

    Raises:
        RedriveFailed: Kafka did not take an event. Those before it may have been sent.
        KafkaUnusable: Kafka is away, or a topic is missing.
    """
    redriven = Redriven()
    with (
        kafka_client(
            KafkaConsumer,
            settings.kafka,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            auto_offset_reset="earliest",
        ) as consumer,
        kafka_producer(settings) as producer,
    ):
        sources = {
            place
            for topic in (TRACKS_UPLOADED, LISTENS, TRACKS_CORRECTED)
            for place in partitions_of(consumer, settings.topics.named(topic))
        }
        letters = _letters(consumer, settings.topics.named(DEAD_LETTER), on_read)
        events = _events(filter(choice.takes, letters), {place.topic for place in sources}, redriven)
        if dry_run:
            redriven.sent.update(letter.reason for letter in events)
            return redriven
        log.info("dead_letters.redrive", by=by, choice=msgspec.to_builtins(choice))
        try:
            _send(producer, events, sources, redriven, rate=rate)
        finally:
            log.info("dead_letters.redriven", by=by, **msgspec.to_builtins(redriven))
    return redriven


def _letters(consumer: KafkaConsumer, topic: str, on_read: Callable[[int, int], None] | None) -> Iterator[DeadLetter]:
    """The letters that are there now."""
    places = partitions_of(consumer, topic)
    starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
    total = sum(ends.values()) - sum(starts.values())
    read = 0
    for record in records_between(consumer, starts, ends):
        if record.offset < ends[TopicPartition(topic, record.partition)]:
            read += 1
            if on_read:
                on_read(read, total)
            yield read_dead_letter(record)


def _events(letters: Iterable[DeadLetter], topics: Collection[str], redriven: Redriven) -> Iterator[DeadLetter]:
    """One letter of each event that can be sent; the others are counted."""
    seen = set[bytes]()
    for letter in letters:
        if letter.source_topic not in topics:
            redriven.foreign += 1
            continue
        if letter.truncated:
            redriven.truncated += 1
            continue
        event = msgspec.msgpack.encode((letter.source_topic, letter.key, letter.value))
        digest = hashlib.sha256(event).digest()
        if digest in seen:
            redriven.repeated += 1
            continue
        seen.add(digest)
        yield letter


def _send(
    producer: KafkaProducer,
    events: Iterable[DeadLetter],
    sources: Collection[TopicPartition],
    redriven: Redriven,
    *,
    rate: float,
) -> None:
    failures: list[BaseException] = []
    started = time.monotonic()
    try:
        for number, letter in enumerate(events):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            if failures:
                break
            # The topic may have been made anew with fewer partitions; then the key decides.
            source = TopicPartition(letter.source_topic, letter.source_partition)
            headers = [(name, text or b"") for name, text in letter.headers]  # kafka-python sends none without a value
            delivery: Any = producer.send(
                letter.source_topic,
                key=letter.key,
                value=letter.value,
                headers=headers,
                partition=source.partition if source in sources else None,
            )
            delivery.add_callback(partial(_count, redriven, letter.reason)).add_errback(failures.append)
    finally:
        try:
            producer.flush(DELIVERY_TIMEOUT_S)
        except KafkaError as error:
            failures.append(error)
    if failures:
        raise RedriveFailed(
            f"Kafka did not take an event ({failures[0]}); run this again: what was sent before does no harm"
        )


def _count(redriven: Redriven, reason: str, _: object) -> None:
    redriven.sent[reason] += 1
