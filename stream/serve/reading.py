"""Reading the compacted topics of a taste space, from their begin and for ever, without a consumer group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import aiokafka
import structlog
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord, TopicPartition

from models.contract import FORGOTTEN, TRACKS_TAGGED, USERS_EMBEDDED
from models.errors import TastewaveError
from stream.broker.consumer_header_names import read_all_header_names
from stream.broker.publish import kafka_advice
from stream.broker.tokens import aiokafka_arguments
from stream.serve.event_log import EventLog
from stream.serve.taste import Change, Taste
from stream.settings import Settings

log = structlog.get_logger(__name__)

RECORDS_AT_ONCE = 500
"""Taken together: some 5 ms, in which the event loop serves nobody."""

REPLAYED_MS = 600_000
"""How long ago an event may have been published that a reader can go on from after a restart of this process."""

KEPT_EVENTS = 50_000
_FETCH_BYTES = 2**20
_POLL_MS = 500
_CHECK_EVERY_S, _CHECK_TIMEOUT_S = 1.0, 5.0
_AGAIN_AFTER_S, _STOP_TIMEOUT_S = 1.0, 5.0
_LET_GO_EVERY_S = 600.0
_REQUEST_TIMEOUT_MS = 15_000
_METADATA_MAX_AGE_MS = 30_000


class TopicMissing(TastewaveError):
    """A topic is not there yet."""


class _Repartitioned(Exception):
    """A topic has more partitions than are read."""


class Reading:
    """Fills a taste from Kafka, and keeps it fresh.

    Attributes:
        taste: that is filled.
        logs: the newest events of tastewave.tracks.tagged and of tastewave.users.embedded, by the contract's name.
        caught_up: set when all was taken that the topics held when reading began.
        cut: set where Kafka does not hold any more what comes next: a topic was made anew. Then read again from the
            begin, into another taste.
        lag: records that Kafka holds and that are not taken yet, as of the last check.
        problem: what keeps records from coming, a sentence; None where nothing does.

    Args:
        settings: how to reach Kafka, and the topics.
        taste: to fill.
        on_events: called when the logs may have grown.
        now_ms: the clock.
    """

    def __init__(
        self, settings: Settings, taste: Taste, *, on_events: Callable[[], None], now_ms: Callable[[], int]
    ) -> None:
        self.taste = taste
        self.logs = {topic: EventLog(size=KEPT_EVENTS) for topic in (TRACKS_TAGGED, USERS_EMBEDDED)}
        self.caught_up = asyncio.Event()
        self.cut = asyncio.Event()
        self.lag = 0
        self.problem: str | None = None
        self._settings = settings
        self._on_events = on_events
        self._now_ms = now_ms
        self._take: dict[str, Callable[[Sequence[ConsumerRecord]], list[Change | None]]] = {
            TRACKS_TAGGED: taste.take_tracks,
            USERS_EMBEDDED: taste.take_users,
            FORGOTTEN: taste.take_forgotten,
        }
        self._topics = {settings.topics.named(topic): topic for topic in self._take}
        self._next: dict[TopicPartition, int] = {}
        self._kafka = f"Kafka at {', '.join(settings.kafka.brokers)}"
        self._ends_at_start: Mapping[TopicPartition, int] | None = None

    async def run(self) -> None:
        """Read until cancelled."""
        while not self.cut.is_set():
            try:
                await self._read()
            except OffsetOutOfRangeError:
                log.warning("feed.log_was_cut", advice="it is read again from its begin")
                self.cut.set()
            except TopicMissing as error:
                self._note(str(error))
                await asyncio.sleep(_AGAIN_AFTER_S)
            except KafkaError as error:
                self._note(f"{self._kafka} cannot be read ({error}); {kafka_advice(error) or 'see its log'}")
                await asyncio.sleep(_AGAIN_AFTER_S)
            except _Repartitioned:
                log.info("feed.partitions_were_added")

    def _note(self, problem: str) -> None:
        """Say what keeps records from coming."""
        problem = self._settings.redacted(problem)
        if self.problem is None:
            log.warning("feed.waits", problem=problem)
        self.problem = problem

    async def _read(self) -> None:
        read_all_header_names()
        consumer = aiokafka.AIOKafkaConsumer(
            **aiokafka_arguments(self._settings.kafka),
            client_id="tastewave-serve",
            client_rack=self._settings.kafka.client_rack,
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            max_partition_fetch_bytes=max(_FETCH_BYTES, self._settings.topics.max_bytes),
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
        )
        try:
            await consumer.start()
            await self._assign(consumer)
            checks = asyncio.create_task(self._check(consumer))
            try:
                while not checks.done():
                    await self._take_some(consumer)
                checks.result()
            finally:
                await end(checks)
        finally:
            # As a task of its own: soon after the start, stopping raises CancelledError, and nobody has cancelled.
            await asyncio.wait([asyncio.create_task(consumer.stop())], timeout=_STOP_TIMEOUT_S)

    async def _assign(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Assign every partition, and go on where reading stopped, or at the begin."""
        await consumer._client.set_topics(self._topics)  # or it knows the partitions of subscribed topics alone
        places = self._places(consumer)
        if missing := [name for name in self._topics if name not in {place.topic for place in places}]:
            raise TopicMissing(f"Kafka has no topic {missing[0]}; run `tastewave topics create`")
        consumer.assign(places)
        if new := [place for place in places if place not in self._next]:
            self._next |= await consumer.beginning_offsets(new)
        for place in places:
            consumer.seek(place, self._next[place])
        if self._ends_at_start is None:
            self._ends_at_start = await consumer.end_offsets(places)
        self.problem = None
        log.info("feed.reads", partitions=len(places), release=self.taste.release)

    def _places(self, consumer: aiokafka.AIOKafkaConsumer) -> list[TopicPartition]:
        return [
            TopicPartition(name, partition)
            for name in self._topics
            for partition in sorted(consumer.partitions_for_topic(name) or ())
        ]

    async def _take_some(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=RECORDS_AT_ONCE)
        for place, records in fetched.items():
            self._take_records(place, records)
        for place in self._next:
            self._next[place] = await consumer.position(place)  # beyond the records where markers of transactions are
            if kept := self.logs.get(self._topics[place.topic]):
                kept.reach(place.partition, self._next[place])
        if fetched:
            self._on_events()
            await asyncio.sleep(0)  # or a buffer that is never empty would leave nothing to other tasks
        if not self.caught_up.is_set() and self._has_reached_the_start():
            await self.taste.rebuild()
            self.caught_up.set()
            log.info("feed.caught_up", release=self.taste.release, sizes=self.taste.sizes)

    def _has_reached_the_start(self) -> bool:
        ends = self._ends_at_start
        return ends is not None and all(self._next[place] >= end for place, end in ends.items())

    def _take_records(self, place: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        topic = self._topics[place.topic]
        changes = self._take[topic](records)
        if kept := self.logs.get(topic):
            old_ms = self._now_ms() - REPLAYED_MS
            for record, change in zip(records, changes, strict=True):
                kept.take(place.partition, record.offset, change, is_old=record.timestamp < old_ms)

    async def _check(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Ask Kafka every second for the ends of the partitions, and see to what is due from time to time."""
        let_go_at = time.monotonic() + _LET_GO_EVERY_S
        while True:
            try:
                async with asyncio.timeout(_CHECK_TIMEOUT_S):
                    ends = await consumer.end_offsets(list(self._next))
            except (KafkaError, TimeoutError) as error:
                self._note(f"{self._kafka} does not answer ({type(error).__name__}); check that it runs")
            else:
                self.lag = sum(max(0, end - self._next[place]) for place, end in ends.items())
                if self.problem:
                    log.info("feed.goes_on")
                self.problem = None
            if len(self._places(consumer)) > len(self._next):
                raise _Repartitioned
            if time.monotonic() > let_go_at:
                self.taste.let_go()
                let_go_at = time.monotonic() + _LET_GO_EVERY_S
            if self.caught_up.is_set():
                await self.taste.rebuild()
            await asyncio.sleep(_CHECK_EVERY_S)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended: what it waits for may swallow a cancellation, as aiokafka does at times."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_STOP_TIMEOUT_S + 1)
