"""What the agents rely on in Faust, on a real broker: a Faust upgrade that breaks it fails here."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from stream.broker.app import tracks_app
from stream.broker.faust_driver import UNEXPECTED_TRIES, BatchApp, Handler
from stream.settings import load_settings

pytestmark = pytest.mark.servers
PARTITIONS = 3


class AwayError(Exception):
    """Stands for a server that is away."""


class Platform:
    """A topic, a way to fill it, and apps that consume it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.settings = load_settings(
            kafka_brokers=environment["TASTEWAVE_KAFKA_BROKERS"], topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"]
        )
        self.topic = self.settings.topics.named("records")
        self.group = self.settings.topics.named("tastewave.tracks.test")
        admin = KafkaAdminClient(bootstrap_servers=list(self.settings.kafka.brokers))
        admin.create_topics({self.topic: {"num_partitions": PARTITIONS, "replication_factor": 1}})
        admin.close()
        self.given_up: list[bytes] = []
        self.waits = 0

    def produce(self, values: list[bytes | None], *, keys: list[bytes] | None = None) -> None:
        producer = KafkaProducer(bootstrap_servers=list(self.settings.kafka.brokers), acks="all")
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

    def app(
        self, handle: Callable[..., Awaitable[None]], *, window: int = 8, order=lambda record: record.key
    ) -> BatchApp:
        async def give_up(record, error: Exception, tries: int) -> None:
            assert tries == UNEXPECTED_TRIES
            self.given_up.append(record.value)

        def waited(error: BaseException) -> None:
            self.waits += 1

        app = tracks_app(self.settings, "test", turns=4)
        handler = Handler(
            handle, give_up, lambda error: isinstance(error, AwayError), lambda record: record.key, waited
        )
        app.consume(self.topic, handler, window=window)
        return app


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

    async with running(platform.app(handle, window=6)):
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

    async with running(platform.app(handle, window=5)):
        await until(lambda: len(seen) >= 20)
    first = len(seen)
    assert first < 300
    assert await asyncio.to_thread(platform.committed) == first
    async with running(platform.app(handle, window=5)):
        await until(lambda: len(seen) >= 300)
        await until_committed(platform, 300)
    assert Counter(seen).most_common(1)[0][1] == 1


async def test_after_an_end_without_drain_nothing_is_missing(platform: Platform) -> None:
    platform.produce([b"%d" % number for number in range(300)])
    seen: list[bytes] = []

    async def handle(record) -> None:
        await asyncio.sleep(0.005)
        seen.append(record.value)

    async with running(platform.app(handle, window=5), drain=False):
        await until(lambda: len(seen) >= 50)
    async with running(platform.app(handle, window=5)):
        await until(lambda: len(set(seen)) == 300)
        await until_committed(platform, 300)


async def test_a_second_worker_joining_and_leaving_in_mid_batch_loses_nothing(platform: Platform) -> None:
    seen: list[tuple[str, bytes]] = []

    def app(name: str) -> BatchApp:
        async def handle(record) -> None:
            await asyncio.sleep(0.01)
            seen.append((name, record.value))

        return platform.app(handle, window=2)

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
    async with running(platform.app(handle, window=2), drain=False) as first:
        await until(lambda: first.in_flight == 2)
        async with running(platform.app(handle, window=2), drain=False) as second:
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
            await until(lambda: second.joined and second.in_flight)
            taken = PARTITIONS - second.in_flight
            await until(lambda: first.in_flight == taken)
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
    app = tracks_app(platform.settings, "test", turns=4)
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

    app = platform.app(handle, window=64)
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

    app = platform.app(handle, window=64)
    async with running(app):
        await until(lambda: len(begun) == 4 and len(done) == 1)
        ((past, _),) = done
        asyncio.get_running_loop().call_later(0.2, release.set)
    assert [record.offset for record in begun if record.partition == past] == list(range(10))
    kept = {(record.partition, record.offset) for record in begun if record.partition != past}
    assert set(done) == {(past, offset) for offset in range(11)} | kept
    assert len(kept) <= 4
    await until_committed(platform, len(done))  # nothing comes twice
