"""The Faust app of a worker: agents that take whole batches, and a drain that leaves nothing half done.

app = batch_app(
    settings, role="tracks", release=release_id, records_per_fetch=32, turns=8, on_away=health.report_away
)
app.consume(topic, handler, in_hand=256)              # one record at a time
app.consume_batches(topic, batch_handler, in_hand=3)  # or what waits of a partition together
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import faust
from aiokafka.structs import ConsumerRecord
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.broker.batch import LOGGER, FetchSchema
from stream.broker.consumer import BatchConsumer
from stream.broker.groups import SESSION_TIMEOUT_S
from stream.broker.handlers import BatchHandler, LeftAlone, RecordHandler
from stream.broker.in_hand import BatchesInHand, InHand, RecordsInHand
from stream.broker.producer import BatchProducer
from stream.broker.resumption import NoTables
from stream.broker.tokens import aiokafka_arguments
from stream.settings import Settings

_FETCHES_BUFFERED = 2
_LEAST_FETCH_BYTES, _RECORD_BYTES = 2**20, 256  # of a partition; a record is a listen where many are fetched
_SENT_BYTES = 2**18  # to a partition at once; the next ones wait until these are acknowledged
_DAY_S = 86_400.0
_LEAST_COMMIT_S = 1.0
# A hung broker costs up to three of it, a request and two new connections, before another one is asked. Joining a
# group takes as long as a rebalance, so it is more than that.
_REQUEST_TIMEOUT_S = 15.0


class Progress(NamedTuple):
    """Where a partition stands: the next record to finish, and the end of the log."""

    next_offset: int
    end_offset: int


class BatchTransport(driver.Transport):
    """Faust's transport with the consumer and the producer of this wing."""

    Consumer = BatchConsumer
    Producer = BatchProducer


class BatchApp(faust.App):
    """A Faust app that consumes through `consume` and `consume_batches` alone.

    Args:
        turns: how many records may take a turn at a time.
        on_away: called with each error that makes a record wait for a server.
        topics: those that agents read or write. Where the user may not write to one that no agent reads, `progress`
            says so.
        client_arguments: of aiokafka, which its consumer and its producer share: brokers, TLS and login.
        client_rack: where the worker runs, so that it may read from replicas that are there.
    """

    logger = LOGGER

    def __init__(
        self,
        *args: Any,
        turns: int,
        on_away: Callable[[BaseException], None],
        topics: Iterable[str],
        client_arguments: Mapping[str, Any],
        client_rack: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            table_standby_replicas=0,  # with Faust's default of 1, a further worker gets no partitions
            topic_disable_leader=True,  # or Faust makes a topic of its own to elect a leader, which nobody needs
            TableManager=NoTables,
            stream_wait_empty=False,  # a rebalance need not wait for the records in hand: their batches are revoked
            **kwargs,
        )
        self.client_arguments = client_arguments
        self._on_away = on_away
        self.client_rack = client_rack
        self._all_in_hand: list[InHand] = []
        self._topics = frozenset(topics)
        self._consumed: set[str] = set()
        self.topics_of_whole_batches: set[str] = set()
        """Those that `consume_batches` has registered."""
        self._turns = asyncio.Semaphore(turns)
        self._reached: dict[TP, int] = {}
        self._draining = False

    def _new_transport(self) -> BatchTransport:
        """Overridden: Faust looks transports up by the scheme of the broker's URL, and knows none of ours."""
        return BatchTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Overridden to make none: workers keep no state of their own."""

    async def _producer_flush(self, logger: Any) -> None:
        """Overridden to wait for nothing: a record is done only after Kafka has acknowledged what was sent for it."""

    def agent(self, *_: Any, **__: Any) -> Any:
        """Refused: Faust loses the events that a plain agent raises on."""
        raise TypeError("a BatchApp has no plain agents; use BatchApp.consume(topic, handler, in_hand=...)")

    def consume(self, topic: str, handler: RecordHandler, *, in_hand: int) -> None:
        """Register the agent of a topic, which handles one record at a time.

        Args:
            topic: name of an existing topic.
            handler: what to do with a record.
            in_hand: how many records may be handled at a time.
        """
        self._add(topic, RecordsInHand(handler, size=in_hand, on_away=self._on_away, on_done=self._note_done))

    def consume_batches(self, topic: str, handler: BatchHandler, *, in_hand: int) -> None:
        """Register the agent of a topic, which handles the fetched batches of a partition that wait together.

        Args:
            topic: name of an existing topic.
            handler: what to do with the records of the batches.
            in_hand: how many calls of the handler may be under way, each with partitions of its own.
        """
        self.topics_of_whole_batches.add(topic)
        records = self.conf.broker_max_poll_records
        work = BatchesInHand(handler, records=records, size=in_hand, on_away=self._on_away, on_done=self._note_done)
        self._add(topic, work)

    def _add(self, topic: str, in_hand: InHand) -> None:
        self._all_in_hand.append(in_hand)
        self._consumed.add(topic)
        super().agent(self.topic(topic, schema=FetchSchema()), name=f"tastewave.{topic}")(in_hand.run)

    @contextlib.asynccontextmanager
    async def turn(self, record: ConsumerRecord) -> AsyncIterator[None]:
        """Wait for a turn: at most `turns` records at a time are inside the block. What is quick needs no turn.

        Raises LeftAlone while the app drains, unless a later record of the partition has had its turn or is done:
        the commit stops at the first record that is not done, so that the later one would be delivered again.
        """
        async with self._turns:
            if self._draining and record.offset > self._reached.get(TP(record.topic, record.partition), -1):
                raise LeftAlone
            self._reach(record)
            yield

    def _note_done(self, records: Sequence[ConsumerRecord]) -> None:
        self._reach(records[-1])

    def _reach(self, record: ConsumerRecord) -> None:
        tp = TP(record.topic, record.partition)
        self._reached[tp] = max(record.offset, self._reached.get(tp, -1))

    @property
    def in_hand(self) -> int:
        """How many records or batches are being handled."""
        return sum(len(one.tasks) for one in self._all_in_hand)

    @property
    def waiting(self) -> list[BaseException]:
        """The last errors of what waits for a server, each of those that say the same once."""
        errors = [error for one in self._all_in_hand for error in one.waiting.values()]
        return list({(type(error), str(error)): error for error in errors}.values())

    @property
    def joined(self) -> bool:
        """Whether the consumer group has given this worker its partitions, which may be none."""
        return cast(BatchConsumer, self.consumer).joined

    @property
    def flows(self) -> bool:
        """Whether records come: not before the worker has its partitions, and not during a rebalance."""
        return cast(BatchConsumer, self.consumer).flows

    async def progress(self) -> dict[TP, Progress]:
        """Where every assigned partition stands, with the end of its log as the broker reports it now.

        A worker without a partition asks the broker as well, so that it notices when Kafka is away. Raises aiokafka's
        KafkaError where Kafka is away, or refuses the worker its group or what it will write.
        """
        consumer = cast(BatchConsumer, self.consumer)
        await consumer.check_group()
        await consumer.check_rights(self._topics - self._consumed)
        tps = consumer.assignment()
        ends = await consumer.highwaters(*(tps or {TP(topic, 0) for topic in self._consumed}))
        progress = {}
        for tp, end in ends.items() if tps else ():
            next_offset = consumer.next_offset(tp)
            if next_offset is None:
                next_offset = await consumer.position(tp) or 0
            progress[tp] = Progress(next_offset, end)
        return progress

    async def drain(self, *, timeout_s: float) -> None:
        """Take nothing new, finish what is in hand within the time, and commit it."""
        self._draining = True
        self.consumer.stop_flow()
        for one in self._all_in_hand:
            one.stop()
        ends_at = asyncio.get_running_loop().time() + timeout_s
        await asyncio.gather(*(one.finish(timeout_s=timeout_s) for one in self._all_in_hand))
        left_s = max(ends_at - asyncio.get_running_loop().time(), _LEAST_COMMIT_S)
        await cast(BatchConsumer, self.consumer).commit_within(left_s)


def batch_app(
    settings: Settings,
    *,
    role: str,
    release: str,
    records_per_fetch: int,
    turns: int,
    on_away: Callable[[BaseException], None],
    topics: Iterable[str] = (),
) -> BatchApp:
    """The app of a worker.

    Args:
        settings: of Kafka and the topics.
        role: tracks or listens.
        release: that the worker is pinned to.
        records_per_fetch: the most records of a batch.
        turns: how many records may take a turn at a time.
        on_away: called with each error that makes a record wait for a server.
        topics: of the contract, those that agents read or write.

    Raises:
        SettingsError: TLS to Kafka cannot be set up.
    """
    return BatchApp(
        settings.topics.consumer_group(role=role, release=release),
        turns=turns,
        on_away=on_away,
        topics=map(settings.topics.named, topics),
        client_arguments=aiokafka_arguments(settings.kafka),
        client_rack=settings.kafka.client_rack,
        broker=[f"kafka://{broker}" for broker in settings.kafka.brokers],
        broker_commit_interval=1.0,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=2.0,
        broker_rebalance_timeout=12.0,  # how long a worker whose event loop stands still holds up a rebalance
        broker_request_timeout=_REQUEST_TIMEOUT_S,
        broker_max_poll_records=records_per_fetch,
        consumer_max_fetch_size=max(_LEAST_FETCH_BYTES, records_per_fetch * _RECORD_BYTES),
        broker_max_poll_interval=_DAY_S,  # Redis may be away for long; readiness looks at progress
        consumer_group_instance_id=settings.kafka.instance_id,
        producer_acks=-1,
        producer_request_timeout=_REQUEST_TIMEOUT_S,
        producer_max_batch_size=min(_SENT_BYTES, settings.topics.max_bytes),
        producer_max_request_size=settings.topics.max_bytes,
        stream_buffer_maxsize=_FETCHES_BUFFERED,
        web_enabled=False,
    )
