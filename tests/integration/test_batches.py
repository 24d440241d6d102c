"""What the agents rely on in Faust, on a real broker: a Faust upgrade that breaks it fails here."""

import asyncio
import datetime
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import OutOfOrderSequenceNumber
from aiokafka.structs import TopicPartition as AioTopicPartition
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata, TopicPartition
from structlog.testing import capture_logs

from deploy.local import Kafka
from stream import metrics
from stream.broker.app import BatchApp, batch_app
from stream.broker.in_hand import UNEXPECTED_TRIES
from stream.broker.operator import kafka_client, partitions_of, records_between
from stream.broker.publish import is_kafka_away
from stream.settings import load_settings

pytestmark = pytest.mark.servers
PARTITIONS = 3


class AwayError(Exception):
    """Stands for a server that is away."""


class AwayForSomeError(AwayError):
    """Stands for a server that is away and that other records do not need."""


class Platform:
    """A topic, a way to fill it, and apps that consume it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.settings = load_settings(
            kafka_brokers=environment["TASTEWAVE_KAFKA_BROKERS"], topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"]
        )
        self.topic = self.settings.topics.named("records")
        self.group = self.settings.topics.consumer_group(role="tracks", release="test")
        self.create(self.topic)
        self.given_up: list[bytes] = []
        self.waits = 0

    def create(self, topic: str) -> None:
        admin = KafkaAdminClient(bootstrap_servers=list(self.settings.kafka.brokers))
        admin.create_topics({topic: {"num_partitions": PARTITIONS, "replication_factor": 1}})
        admin.close()

    def produce(self, values: list[bytes | None], *, keys: list[bytes] | None = None, linger_ms: int = 0) -> None:
        brokers = list(self.settings.kafka.brokers)
        producer = KafkaProducer(bootstrap_servers=brokers, acks="all", linger_ms=linger_ms)
        for number, value in enumerate(values):
            place = {"key": keys[number]} if keys else {"partition": number % PARTITIONS}
            producer.send(self.topic, value=value, **place)
        producer.flush()
        producer.close()

    def committed(self) -> int:
        consumer = KafkaConsumer(
            bootstrap_servers=list(self.settings.kafka.brokers), group_id=self.group, enable_auto_commit=False
        )
        try:
            return sum(consumer.committed(TopicPartition(self.topic, number)) or 0 for number in range(PARTITIONS))
        finally:
            consumer.close()

    def app(self, handle: Callable[..., Awaitable[None]], *, in_hand: int = 8) -> BatchApp:
        app = self.plain_app()
        app.consume(self.topic, Records(self, handle), in_hand=in_hand)
        return app

    def batch_app(
        self, handle_batch: Callable[..., Awaitable[None]], *, in_hand: int = 8, records_per_fetch: int = 32
    ) -> BatchApp:
        app = self.plain_app(records_per_fetch=records_per_fetch)
        app.consume_batches(self.topic, Batches(self, handle_batch), in_hand=in_hand)
        return app

    def plain_app(self, *, records_per_fetch: int = 32) -> BatchApp:
        return batch_app(
            self.settings,
            role="tracks",
            release="test",
            records_per_fetch=records_per_fetch,
            turns=4,
            on_away=self.note_wait,
        )

    def note_wait(self, error: BaseException) -> None:
        assert isinstance(error, AwayError)
        self.waits += 1


class Errors:
    """What the two handlers below say about errors."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def is_away(self, error: BaseException) -> bool:
        return isinstance(error, AwayError)

    async def give_up(self, record, error: Exception, tries: int) -> None:
        assert tries == UNEXPECTED_TRIES
        self.platform.given_up.append(record.value)


class Records(Errors):
    """A RecordHandler of a function; records of one Kafka key wait for each other."""

    def __init__(self, platform: Platform, handle: Callable[..., Awaitable[None]]) -> None:
        super().__init__(platform)
        self.handle = handle

    def is_away_for_some(self, error: BaseException) -> bool:
        return isinstance(error, AwayForSomeError)

    def order(self, record) -> bytes | None:
        return record.key


class Batches(Errors):
    """A BatchHandler of a function."""

    def __init__(self, platform: Platform, handle_batch: Callable[..., Awaitable[None]]) -> None:
        super().__init__(platform)
        self.handle_batch = handle_batch


@pytest.fixture
def platform(environment: dict[str, str]) -> Platform:
    return Platform(environment)


@asynccontextmanager
async def running(app: BatchApp, *, drain: bool = True) -> AsyncIterator[BatchApp]:
    await app.start()
    try:
        yield app
        if drain:
            await app.drain(timeout_s=10)
    finally:
        await app.stop()


async def until(condition: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.05)


async def until_committed(platform: Platform, count: int) -> None:
    deadline = time.monotonic() + 30
    while (committed := await asyncio.to_thread(platform.committed)) != count:
        assert time.monotonic() < deadline, f"{committed} of {count} committed"
        await asyncio.sleep(0.1)


async def test_every_record_is_handled_once_and_all_are_committed(platform: Platform) -> None:
    values = [b"%d" % number for number in range(500)]
    platform.produce(values)
    seen: list[bytes] = []

    async def handle(record) -> None:
        await asyncio.sleep(0)
        seen.append(record.value)

    async with running(platform.app(handle)) as app:
        await until(lambda: len(seen) >= 500)
        await until_committed(platform, 500)
        assert {progress.end_offset - progress.next_offset for progress in (await app.progress()).values()} == {0}
    assert sorted(seen) == sorted(values)


async def test_a_record_that_is_not_done_is_never_committed_past(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(90)])
    release, seen = asyncio.Event(), []

    async def handle(record) -> None:
        if record.partition == 0 and record.offset == 7:
            await release.wait()
        seen.append(record.value)

    async with running(platform.app(handle)) as app:
        await until(lambda: len(seen) == 89)
        await until_committed(platform, 67)  # two whole partitions, and seven records of the third
        lags = {tp.partition: end - done for tp, (done, end) in (await app.progress()).items()}
        assert lags == {0: 23, 1: 0, 2: 0}
        release.set()
        await until_committed(platform, 90)


async def test_an_unexpected_error_gets_a_few_tries_and_then_its_record_alone_is_given_up(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(60)])
    tries: Counter[bytes] = Counter()
    seen: list[bytes] = []

    async def handle(record) -> None:
        tries[record.value] += 1
        if record.value in (b"5", b"31"):
            raise KeyError("a fault of ours")
        if record.value == b"7" and tries[b"7"] < UNEXPECTED_TRIES:
            raise OSError("for a while")
        seen.append(record.value)

    async with running(platform.app(handle)):
        await until_committed(platform, 60)
    assert sorted(platform.given_up) == [b"31", b"5"]
    assert len(seen) == 58
    assert tries[b"5"] == tries[b"7"] == UNEXPECTED_TRIES


async def test_while_a_server_is_away_the_record_waits_and_its_place_is_held(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(30)])
    away, seen = True, []

    async def handle(record) -> None:
        if away:
            raise AwayError
        seen.append(record.value)

    async with running(platform.app(handle)):
        await until(lambda: platform.waits > 20)  # each record has been tried more often than an unexpected error may
        assert await asyncio.to_thread(platform.committed) == 0
        away = False
        await until_committed(platform, 30)
    assert len(seen) == 30
    assert platform.given_up == []


async def test_records_that_wait_for_a_server_that_others_do_not_need_hold_up_nobody(platform: Platform) -> None:
    platform.produce([b"away"] * 60 + [b"%d" % number for number in range(60)])
    away, done = True, []

    async def handle(record) -> None:
        if away and record.value == b"away":
            raise AwayForSomeError
        done.append(record.value)

    async with running(platform.app(handle, in_hand=4)) as app:
        await until(lambda: len(done) == 60)
        assert app.in_hand == 60
        assert await asyncio.to_thread(platform.committed) == 0
        away = False
        await until_committed(platform, 120)
    assert len(done) == 120


async def test_records_of_one_key_are_handled_in_order_and_others_side_by_side(platform: Platform) -> None:
    keys = [b"even" if number % 2 else b"odd" for number in range(40)] + [b"%d" % number for number in range(40)]
    platform.produce([b"%d" % number for number in range(80)], keys=keys)
    active: Counter[bytes] = Counter()
    most_at_once, most_of_one_key, order = 0, 0, []

    async def handle(record) -> None:
        nonlocal most_at_once, most_of_one_key
        active[record.key] += 1
        most_at_once = max(most_at_once, active.total())
        most_of_one_key = max(most_of_one_key, active[record.key])
        await asyncio.sleep(0.005)
        active[record.key] -= 1
        order.append((record.key, int(record.value)))

    async with running(platform.app(handle, in_hand=6)):
        await until(lambda: len(order) >= 80)
    assert most_of_one_key == 1
    assert 2 <= most_at_once <= 6
    for key in (b"even", b"odd"):
        numbers = [number for its_key, number in order if its_key == key]
        assert numbers == sorted(numbers)


async def test_a_drain_finishes_what_is_in_hand_and_commits_it_so_that_nothing_comes_twice(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(300)])
    seen: list[bytes] = []

    async def handle(record) -> None:
        await asyncio.sleep(0.01)
        seen.append(record.value)

    async with running(platform.app(handle, in_hand=5)):
        await until(lambda: len(seen) >= 20)
    first = len(seen)
    assert first < 300
    assert await asyncio.to_thread(platform.committed) == first
    async with running(platform.app(handle, in_hand=5)):
        await until(lambda: len(seen) >= 300)
        await until_committed(platform, 300)
    assert Counter(seen).most_common(1)[0][1] == 1


async def test_a_drain_that_outlasts_the_fetch_that_is_under_way_commits_what_it_finishes(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(6)])
    release, seen = asyncio.Event(), []

    async def handle(record) -> None:
        await release.wait()
        seen.append(record.value)

    async with running(platform.app(handle)) as app:
        await until(lambda: app.in_hand == 6)
        asyncio.get_running_loop().call_later(2.5, release.set)  # a fetch takes at most 1.5 s
    assert len(seen) == await asyncio.to_thread(platform.committed) == 6


async def test_after_an_end_without_drain_nothing_is_missing(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(300)])
    seen: list[bytes] = []

    async def handle(record) -> None:
        await asyncio.sleep(0.005)
        seen.append(record.value)

    async with running(platform.app(handle, in_hand=5), drain=False):
        await until(lambda: len(seen) >= 50)
    async with running(platform.app(handle, in_hand=5)):
        await until(lambda: len(set(seen)) == 300)
        await until_committed(platform, 300)


async def test_a_second_worker_joining_and_leaving_in_mid_batch_loses_nothing(platform: Platform) -> None:
    seen: list[tuple[str, bytes]] = []

    def app(name: str) -> BatchApp:
        async def handle(record) -> None:
            await asyncio.sleep(0.01)
            seen.append((name, record.value))

        return platform.app(handle, in_hand=2)

    platform.produce([b"a%d" % number for number in range(600)])
    async with running(app("first")) as first:
        await until(lambda: len(seen) > 50)
        async with running(app("second")) as second:
            await until(lambda: second.joined)
            platform.produce([b"b%d" % number for number in range(600)])
            await until(lambda: any(name == "second" for name, _ in seen))
            assert len(await first.progress()) + len(await second.progress()) == PARTITIONS
        await until(lambda: len({value for _, value in seen}) == 1200)
        await until_committed(platform, 1200)


async def test_offsets_that_kafka_did_not_take_are_committed_again(platform: Platform) -> None:
    refused: list[object] = []

    async def handle(record) -> None:
        pass

    app = platform.app(handle)
    commit = app.consumer._commit

    async def refused_at_first(offsets) -> bool:
        if len(refused) < 3:
            refused.append(offsets)
            return False
        return await commit(offsets)

    app.consumer._commit = refused_at_first
    platform.produce([b"%d" % number for number in range(30)])
    async with running(app):
        await until_committed(platform, 30)
    assert len(refused) == 3


async def test_records_that_wait_do_not_keep_a_second_worker_from_its_share(platform: Platform) -> None:
    async def handle(record) -> None:
        raise AwayError

    platform.produce([b"%d" % number for number in range(90)])
    async with running(platform.app(handle, in_hand=2), drain=False) as first:
        await until(lambda: first.in_hand == 2)
        async with running(platform.app(handle, in_hand=2), drain=False) as second:
            await until(lambda: second.joined)
            assert len(await first.progress()) + len(await second.progress()) == PARTITIONS


async def test_a_commit_and_a_check_that_hang_do_not_stop_the_fetches(platform: Platform) -> None:
    seen: list[bytes] = []

    async def handle(record) -> None:
        seen.append(record.value)

    app, answered = platform.app(handle), asyncio.Event()
    async with running(app):
        await until(lambda: app.joined)
        thread = app.consumer._thread
        hanging = [asyncio.create_task(thread.call_thread(answered.wait)) for _ in range(2)]
        try:
            platform.produce([b"%d" % number for number in range(30)])
            await until(lambda: len(seen) == 30)
        finally:
            thread.thread_loop.call_soon_threadsafe(answered.set)
            await asyncio.gather(*hanging)


async def test_a_commit_that_hangs_does_not_keep_a_second_worker_from_its_share(platform: Platform) -> None:
    hangs, goes_on = asyncio.Event(), asyncio.Event()

    async def handle(record) -> None:
        pass

    async def hanging(offsets) -> bool:
        hangs.set()
        await goes_on.wait()
        return False

    first = platform.app(handle)
    first.consumer._commit = hanging
    platform.produce([b"%d" % number for number in range(30)])
    async with running(first, drain=False):
        await hangs.wait()
        try:
            async with running(platform.app(handle), drain=False) as second:
                await until(lambda: second.joined)
                assert len(await first.progress()) + len(await second.progress()) == PARTITIONS
        finally:
            goes_on.set()


async def test_a_record_whose_partition_was_taken_away_stops_waiting(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(PARTITIONS)])
    tries: Counter[bytes] = Counter()
    away, done = True, []

    async def stuck(record) -> None:
        tries[record.value] += 1
        raise AwayError

    async def handle(record) -> None:
        if away:
            raise AwayError
        done.append(record.value)

    first = platform.app(stuck)
    async with running(first):
        await until(lambda: len(tries) == PARTITIONS)
        async with running(platform.app(handle)) as second:
            await until(lambda: second.joined and second.in_hand)
            taken = PARTITIONS - second.in_hand
            await until(lambda: first.in_hand == taken)
            away = False
            await until(lambda: done)
    assert platform.given_up == []


async def test_empty_and_undecodable_values_reach_the_handler_as_they_are(platform: Platform) -> None:
    values = [None, b"", b"\xff\xfe", b"{", json.dumps({"deep": 1}).encode()]
    platform.produce(values, keys=[b"%d" % number for number in range(len(values))])
    seen: list[bytes | None] = []

    async def handle(record) -> None:
        seen.append(record.value)

    async with running(platform.app(handle)):
        await until_committed(platform, len(values))
    assert sorted(map(repr, seen)) == sorted(map(repr, values))


async def test_a_plain_faust_agent_is_refused(platform: Platform) -> None:
    app = platform.plain_app()
    with pytest.raises(TypeError, match="consume"):
        app.agent(app.topic(platform.topic))


async def test_what_takes_long_waits_for_its_turn_and_the_rest_flows_past_it(platform: Platform) -> None:
    platform.produce([b"long"] * 20 + [b"short"] * 20)
    release, at_once, most, short = asyncio.Event(), 0, 0, 0

    async def handle(record) -> None:
        nonlocal at_once, most, short
        if record.value == b"short":
            short += 1
            return
        async with app.turn(record):
            at_once += 1
            most = max(most, at_once)
            await release.wait()
            at_once -= 1

    app = platform.app(handle, in_hand=64)
    async with running(app):
        await until(lambda: short == 20 and at_once == 4)
        release.set()
        await until_committed(platform, 40)
    assert most == 4


async def test_a_drain_leaves_what_had_no_turn_yet_unless_a_later_record_is_done(platform: Platform) -> None:
    platform.produce([b"long-%d" % number for number in range(30)] + [b"short"])
    release, begun, done = asyncio.Event(), [], []

    async def handle(record) -> None:
        if record.value != b"short":
            async with app.turn(record):
                begun.append(record)
                await release.wait()
        done.append((record.partition, record.offset))

    app = platform.app(handle, in_hand=64)
    async with running(app):
        await until(lambda: len(begun) == 4 and len(done) == 1)
        ((past, _),) = done
        asyncio.get_running_loop().call_later(0.2, release.set)
    assert [record.offset for record in begun if record.partition == past] == list(range(10))
    kept = {(record.partition, record.offset) for record in begun if record.partition != past}
    assert set(done) == {(past, offset) for offset in range(11)} | kept
    assert len(kept) <= 4
    await until_committed(platform, len(done))  # nothing comes twice


async def test_a_batch_handler_gets_what_a_fetch_brought_and_all_of_it_is_committed(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(600)])
    batches: list[list[bytes]] = []

    async def handle_batch(records) -> None:
        batches.append([record.value for record in records])

    async with running(platform.batch_app(handle_batch)):
        await until_committed(platform, 600)
    assert sorted(value for batch in batches for value in batch) == sorted(b"%d" % number for number in range(600))
    assert 1 < max(map(len, batches)) <= 32


async def test_what_waits_of_several_partitions_is_handled_together_and_committed_for_each(platform: Platform) -> None:
    platform.produce([b"first"] * PARTITIONS)
    release, calls = asyncio.Event(), []

    async def handle_batch(records) -> None:
        calls.append([(record.partition, record.offset) for record in records])
        await release.wait()

    async with running(platform.batch_app(handle_batch, in_hand=1, records_per_fetch=100)) as app:
        await until(lambda: calls)
        platform.produce([b"%d" % number for number in range(60)])
        (work,) = app._all_in_hand
        await until(lambda: sum(len(batch.records) for batch in work._queue) + sum(map(len, calls)) == 60 + PARTITIONS)
        assert len(calls) == 1
        release.set()
        await until_committed(platform, 60 + PARTITIONS)
    assert {partition for partition, _ in calls[1]} == set(range(PARTITIONS))
    for number in range(PARTITIONS):
        assert [offset for call in calls for partition, offset in call if partition == number] == list(range(21))


async def test_batches_of_a_partition_follow_each_other_while_other_partitions_are_worked(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(600)])
    release, active, offsets = asyncio.Event(), Counter(), []

    async def handle_batch(records) -> None:
        partition = records[0].partition
        active[partition] += 1
        assert active[partition] == 1
        if partition == 0:
            await release.wait()
        offsets.extend((record.partition, record.offset) for record in records)
        active[partition] -= 1

    async with running(platform.batch_app(handle_batch, in_hand=6, records_per_fetch=5)):
        await until(lambda: len(offsets) == 400)  # the two other partitions; 40 batches of the first one wait
        release.set()
        await until_committed(platform, 600)
    for partition in range(PARTITIONS):
        assert [offset for its, offset in offsets if its == partition] == list(range(200))


async def test_a_partition_with_a_backlog_does_not_wait_for_records_of_the_others(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(300)], keys=[b"one"] * 300)
    batches: list[int] = []

    async def handle_batch(records) -> None:
        await asyncio.sleep(0.01)
        batches.append(len(records))

    async with running(platform.batch_app(handle_batch, records_per_fetch=3)):
        await until(lambda: sum(batches) == 300, timeout_s=15)  # an empty fetch takes a second
    assert max(batches) == 3


async def test_an_unexpected_error_in_a_batch_is_narrowed_down_to_its_record(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(150)])
    done: list[bytes] = []

    async def handle_batch(records) -> None:
        if any(record.value in (b"7", b"70") for record in records):
            raise KeyError("a fault of ours")
        done.extend(record.value for record in records)

    async with running(platform.batch_app(handle_batch)):
        await until_committed(platform, 150)
    assert sorted(platform.given_up) == [b"7", b"70"]
    assert sorted([*done, b"7", b"70"]) == sorted(b"%d" % number for number in range(150))


async def test_a_batch_waits_as_a_whole_while_a_server_is_away_and_comes_again_after_an_end(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(60)])
    away, done = True, []

    async def handle_batch(records) -> None:
        if away:
            raise AwayError
        done.extend(record.value for record in records)

    async with running(platform.batch_app(handle_batch)) as app:
        await until(lambda: platform.waits > 8)
        assert [type(error) for error in app.waiting] == [AwayError]
    assert await asyncio.to_thread(platform.committed) == 0
    away = False
    async with running(platform.batch_app(handle_batch)):
        await until_committed(platform, 60)
    assert sorted(done) == sorted(b"%d" % number for number in range(60))
    assert platform.given_up == []


def place_group(platform: Platform, offsets: dict[int, int]) -> None:
    """Let the consumer group have committed these offsets, by partition."""
    admin = KafkaAdminClient(bootstrap_servers=list(platform.settings.kafka.brokers))
    places = {TopicPartition(platform.topic, number): OffsetAndMetadata(at, "", -1) for number, at in offsets.items()}
    admin.alter_group_offsets(platform.group, places)
    admin.close()


@pytest.mark.parametrize("moment", ["first assignment", "rebalance"])
async def test_a_broker_that_freezes_at_the_seek_only_delays_the_flow(
    environment: dict[str, str], kafka: Kafka, moment: str
) -> None:
    platform = Platform(environment | {"TASTEWAVE_KAFKA_BROKERS": kafka.brokers})
    seen: list[bytes] = []
    freezes = 0

    async def handle(record) -> None:
        seen.append(record.value)

    def app() -> BatchApp:
        app = platform.app(handle)
        app.conf.broker_request_timeout = 2.0  # the freeze is longer
        seek = app.consumer._thread.seek_to_committed

        async def frozen() -> object:
            nonlocal freezes
            if armed and not freezes:
                freezes += 1
                kafka.pause()
                asyncio.get_running_loop().call_later(5.0, kafka.resume)
            return await seek()

        app.consumer._thread.seek_to_committed = frozen
        return app

    armed = moment == "first assignment"
    platform.produce([b"a%d" % number for number in range(30)])
    async with running(app()) as first, AsyncExitStack() as stack:
        if moment == "rebalance":
            await until(lambda: len(seen) == 30)
            armed = True
            await stack.enter_async_context(running(app()))
        await until(lambda: freezes and first.flows)
        await until(lambda: len(set(seen)) == 30)
        await asyncio.to_thread(platform.produce, [b"b%d" % number for number in range(30)])
        await until(lambda: len(set(seen)) == 60)
        await until_committed(platform, 60)


async def test_where_the_log_ends_before_the_committed_offset_all_that_it_holds_is_handled(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(60)])
    place_group(platform, {0: 50, 1: 20, 2: 20})  # each partition has 20 records
    cuts = metrics.LOG_CUTS._value.get()
    seen: list[bytes] = []

    async def handle(record) -> None:
        seen.append(record.value)

    with capture_logs() as logs:
        async with running(platform.app(handle)):
            await until(lambda: len(seen) == 20)
            await asyncio.to_thread(platform.produce, [b"new %d" % number for number in range(30)])
            await until_committed(platform, 90)
    assert sorted(seen) == sorted([b"%d" % n for n in range(0, 60, 3)] + [b"new %d" % n for n in range(30)])
    assert metrics.LOG_CUTS._value.get() == cuts + 1
    (cut,) = [line for line in logs if line["event"] == "kafka.log_was_cut"]
    assert (cut["partition"], cut["offset"], cut["begin"], cut["end"]) == (0, 50, 0, 20)


async def test_a_log_that_a_power_cut_shortened_under_a_worker_is_read_again_from_its_begin(
    environment: dict[str, str], kafka: Kafka
) -> None:
    platform = Platform(environment | {"TASTEWAVE_KAFKA_BROKERS": kafka.brokers})
    values = [b"%d" % number for number in range(60)]
    platform.produce(values[:30])
    platform.produce(values[30:], linger_ms=1000)  # one batch for each partition
    seen: list[bytes] = []

    async def handle(record) -> None:
        seen.append(record.value)

    def cut_power() -> list[bytes]:
        """Tear the last batch of each partition, which Kafka drops when it starts; returns what the topic has then."""
        kafka.kill()
        for log in (kafka.folder / "data").glob(f"{platform.topic}-*/00000000000000000000.log"):
            os.truncate(log, log.stat().st_size - 10)
        kafka.restart()
        platform.produce([b"new"])
        with kafka_client(KafkaConsumer, platform.settings.kafka) as consumer:
            places = partitions_of(consumer, platform.topic)
            ends = consumer.end_offsets(places)
            return [record.value for record in records_between(consumer, dict.fromkeys(places, 0), ends)]

    with capture_logs() as logs:
        async with running(platform.app(handle)):
            await until_committed(platform, 60)
            left = await asyncio.to_thread(cut_power)
            assert b"new" in left
            assert len(left) <= 31
            await until_committed(platform, len(left))
    assert Counter(seen) == Counter(values + left)
    assert [line["event"] for line in logs].count("kafka.log_was_cut") == PARTITIONS


async def test_records_that_retention_took_are_counted_and_the_rest_is_handled(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(60)])
    place_group(platform, {0: 5, 1: 20, 2: 20})
    admin = KafkaAdminClient(bootstrap_servers=list(platform.settings.kafka.brokers))
    admin.delete_records({TopicPartition(platform.topic, 0): 12})
    admin.close()
    lost = metrics.LOST_TO_RETENTION._value.get()
    seen: list[int] = []

    async def handle(record) -> None:
        seen.append(record.offset)

    with capture_logs() as logs:
        async with running(platform.app(handle)):
            await until_committed(platform, 60)
    assert sorted(seen) == list(range(12, 20))
    assert metrics.LOST_TO_RETENTION._value.get() == lost + 7
    (line,) = [line for line in logs if line["event"] == "kafka.lost_to_retention"]
    assert (line["partition"], line["offset"], line["lost"]) == (0, 5, 7)
    assert abs(datetime.datetime.fromisoformat(line["left_from"]).timestamp() - time.time()) < 300


async def test_what_a_transaction_aborts_is_not_handled_and_its_markers_are_no_lag(platform: Platform) -> None:
    seen: list[bytes] = []

    async def handle(record) -> None:
        seen.append(record.value)

    brokers = list(platform.settings.kafka.brokers)
    async with (
        running(platform.app(handle)) as app,
        AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=f"{platform.topic}.a") as first,
        AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=f"{platform.topic}.b") as second,
    ):
        async with first.transaction():
            await first.send_and_wait(platform.topic, b"kept", partition=0)
        await first.begin_transaction()
        await first.send_and_wait(platform.topic, b"aborted", partition=0)
        await first.abort_transaction()
        await until_committed(platform, 4)  # two records, two markers
        assert seen == [b"kept"]
        assert {progress.end_offset - progress.next_offset for progress in (await app.progress()).values()} == {0}

        await second.begin_transaction()
        await second.send_and_wait(platform.topic, b"open", partition=0)
        await asyncio.to_thread(platform.produce, [b"behind it", b"elsewhere"])
        await until(lambda: b"elsewhere" in seen)
        assert seen == [b"kept", b"elsewhere"]
        await second.commit_transaction()
        await until_committed(platform, 8)
        assert seen == [b"kept", b"elsewhere", b"open", b"behind it"]


async def test_a_broker_that_forgot_an_idempotent_producer_gets_a_new_one(platform: Platform) -> None:
    async def handle(record) -> None:
        raise AssertionError

    app = platform.app(handle)
    async with running(app):
        send = partial(app.producer.send_and_wait, platform.settings.topics.named("answers"), b"key", b"value",
                       0, None, None)  # fmt: skip
        answers = platform.settings.topics.named("answers")
        await asyncio.to_thread(platform.create, answers)
        await send()
        old = app.producer._producer
        old._txn_manager.increment_sequence_number(AioTopicPartition(answers, 0), 7)  # as if the broker had lost seven
        with pytest.raises(OutOfOrderSequenceNumber) as refused:
            await send()
        assert is_kafka_away(refused.value)  # the record of an upload waits, and is tried again
        await until(lambda: app.producer._producer is not old)
        await send()


async def test_a_named_worker_that_is_restarted_finds_its_partitions_and_the_others_do_not_pause(
    platform: Platform,
) -> None:
    seen: list[bytes] = []

    async def handle(record) -> None:
        seen.append(record.value)

    def app(name: str) -> BatchApp:
        kafka = platform.settings.kafka.model_copy(update={"instance_id": name})
        app = batch_app(
            replace(platform.settings, kafka=kafka),
            role="tracks",
            release="test",
            records_per_fetch=32,
            turns=4,
            on_away=platform.note_wait,
        )
        app.consume(platform.topic, Records(platform, handle), in_hand=8)
        return app

    async with running(app("one")) as stays:
        await until(lambda: stays.flows)
        async with running(app("two")) as goes:
            await until(lambda: goes.flows and stays.flows)
            held, pauses = (await goes.progress()).keys(), stays.rebalancing_count
        async with running(app("two")) as back:
            await until(lambda: back.flows)
            assert (await back.progress()).keys() == held
            platform.produce([b"%d" % number for number in range(60)])
            await until_committed(platform, 60)
        assert stays.rebalancing_count == pauses
    assert len(seen) == 60


async def test_a_try_that_a_frozen_broker_takes_late_is_on_the_topic_once_and_before_what_follows(
    environment: dict[str, str], kafka: Kafka
) -> None:
    platform = Platform(environment | {"TASTEWAVE_KAFKA_BROKERS": kafka.brokers})
    app = platform.plain_app()
    app.conf.producer_request_timeout = 1.0

    def send(value: bytes) -> asyncio.Task[object]:
        return asyncio.create_task(app.producer.send_and_wait(platform.topic, b"key", value, 0, None, None))

    async with running(app, drain=False):
        await send(b"first")
        kafka.pause()
        try:
            late = send(b"older")
            await asyncio.sleep(3.5)  # the broker has the request, and the producer tries again
        finally:
            kafka.resume()
        await late
        await send(b"newer")
    with kafka_client(KafkaConsumer, platform.settings.kafka) as consumer:
        place = TopicPartition(platform.topic, 0)
        ends = consumer.end_offsets([place])
        values = [record.value for record in records_between(consumer, {place: 0}, ends)]
    assert values == [b"first", b"older", b"newer"]
