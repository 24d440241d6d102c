"""Readiness: problems, progress against lag, and the three pages."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import redis
from aiohttp import ClientSession
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP

from models.errors import SettingsError
from stream import metrics
from stream.broker.app import Progress
from stream.settings import load_settings
from stream.worker.health import Health

HERE = TP("uploads", 0)


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


def server_of(error: BaseException) -> str:
    return "redis" if isinstance(error, (redis.RedisError, ConnectionError)) else "kafka"


def new_health(port: int = 0, **options) -> Health:
    settings = load_settings(health_port=port, stall_s=60.0).worker
    redacted = lambda text: text.replace("secret", "***")  # noqa: E731
    return Health(settings, release="abc", role="tracks", server_of=server_of, redacted=redacted, **options)


@pytest.fixture
def health(clock) -> Health:
    health = new_health(monotonic=lambda: clock[0])
    health.note_flow(flows=True)
    return health


def at(health: Health, clock: list[float], now: float, next_offset: int, end_offset: int) -> bool:
    clock[0] = now
    health.checked()
    health.note_progress({HERE: Progress(next_offset, end_offset)})
    return health.report()["ready"]


def test_a_worker_that_is_starting_is_not_ready() -> None:
    report = new_health().report()
    assert (report["ready"], report["problems"]) == (False, {"worker": "starting"})


def test_a_worker_with_no_partition_is_ready(health, clock) -> None:
    health.note_progress({})
    assert health.report()["ready"]


def test_a_partition_with_lag_is_ready_while_it_moves_and_not_when_it_stands_still(health, clock) -> None:
    assert at(health, clock, 1000, 5, 50)
    assert at(health, clock, 1059, 5, 60)
    assert metrics.STALLED._value.get() == 0
    assert not at(health, clock, 1061, 5, 70)
    assert metrics.STALLED._value.get() == 1
    assert health.report()["partitions"] == {"uploads/0": {"next_offset": 5, "lag": 65}}
    assert at(health, clock, 1062, 6, 70)


def test_a_partition_without_lag_may_stand_still_and_its_time_starts_with_the_lag(health, clock) -> None:
    assert at(health, clock, 1000, 9, 9)
    assert at(health, clock, 5000, 9, 9)
    assert at(health, clock, 5059, 9, 10)
    assert not at(health, clock, 5061, 9, 10)


def test_a_partition_that_was_taken_away_is_forgotten(health, clock) -> None:
    at(health, clock, 1000, 5, 50)
    clock[0] = 2000
    health.checked()
    health.note_progress({})
    assert health.report()["ready"]
    assert health.report()["partitions"] == {}


def test_a_check_that_no_longer_comes_is_a_problem(health, clock) -> None:
    clock[0] += 3600
    assert "no check" in health.report()["problems"]["worker"]


def test_a_server_that_is_away_is_named_until_it_is_back(health) -> None:
    health.report_away(ConnectionError("refused"))
    health.report_away(ConnectionError("refused again with secret"))
    assert health.report()["problems"] == {"redis": "refused again with ***"}
    health.report_back("redis")
    assert health.report()["ready"]


def live(health: Health, clock: list[float], now: float, *, flows: bool = True) -> bool:
    clock[0] = now
    health.note_flow(flows=flows)
    health.checked()
    return health.hopeless() is None


def test_a_partition_that_stands_still_for_long_while_all_servers_are_well_makes_the_worker_not_live(
    health, clock
) -> None:
    at(health, clock, 1000, 5, 50)
    assert live(health, clock, 1119)
    assert not live(health, clock, 1121)  # twice stall_s
    assert health.hopeless() == "no progress at offset 5 of uploads/0 for 121 s"
    at(health, clock, 1122, 6, 50)
    assert live(health, clock, 1122)


def test_time_in_which_a_server_was_away_does_not_make_a_worker_not_live(health, clock) -> None:
    at(health, clock, 1000, 5, 50)
    health.report_away(ConnectionError("refused"))
    assert live(health, clock, 9000)
    health.report_back("redis")
    assert live(health, clock, 9119)
    assert not live(health, clock, 9121)


def test_a_worker_that_reads_no_partitions_is_neither_ready_nor_after_a_while_live(health, clock) -> None:
    assert live(health, clock, 1000, flows=False)
    assert live(health, clock, 1014, flows=False)
    assert health.report()["ready"]
    assert live(health, clock, 1016, flows=False)
    assert health.report()["problems"] == {"worker": "no partitions are read for 16 s"}
    assert not live(health, clock, 1121, flows=False)
    assert health.hopeless() == "no flow of records for 121 s"


def test_checks_that_no_longer_come_make_the_worker_not_live(health, clock) -> None:
    assert live(health, clock, 1000)
    clock[0] = 1121
    assert health.hopeless() == "no check for 121 s"


def test_a_worker_that_waits_for_servers_at_its_start_is_live_for_as_long_as_that_takes(clock) -> None:
    health = new_health(monotonic=lambda: clock[0])
    health.report_away(ConnectionError("refused"))
    clock[0] += 100_000
    assert health.hopeless() is None
    health.report_back("redis")
    assert health.hopeless() is None


class FakeApp:
    """An app that finds Kafka well; a record may wait for a server nevertheless."""

    flows, in_hand = True, 1

    def __init__(self) -> None:
        self.waiting: list[BaseException] = []

    async def progress(self) -> dict[TP, Progress]:
        return {}


@asynccontextmanager
async def watched(health: Health, app: FakeApp, **checks) -> AsyncIterator[Callable[[], Awaitable[dict[str, str]]]]:
    """Watch, and give what waits for the next whole round of checks and returns the problems after it."""
    rounds: asyncio.Queue[None] = asyncio.Queue()

    async def counted() -> None:
        rounds.put_nowait(None)

    async def next_round() -> dict[str, str]:
        for _ in range(rounds.qsize() + 2):  # one may have begun already
            await rounds.get()
        return health.report()["problems"]

    watch = asyncio.create_task(health.watch(app, {"redis": counted, **checks}))
    try:
        yield next_round
    finally:
        watch.cancel()


async def test_a_server_that_answers_checks_is_not_back_before_the_records_that_wait_for_it(health) -> None:
    app = FakeApp()
    async with watched(health, app) as next_round:
        assert await next_round() == {}
        app.waiting = [KafkaTimeoutError("late"), redis.ConnectionError("refused")]
        for error in app.waiting:
            health.report_away(error)
        assert (await next_round()).keys() == {"kafka", "redis"}
        app.waiting.pop()
        assert (await next_round()).keys() == {"kafka"}
        app.waiting.pop()
        assert await next_round() == {}


async def test_a_check_of_a_role_that_raises_is_a_problem_under_its_name(health) -> None:
    trouble: list[Exception] = []

    async def check_index() -> None:
        if trouble:
            raise trouble[0]

    async with watched(health, FakeApp(), index=check_index) as next_round:
        assert await next_round() == {}
        trouble.append(RuntimeError("not built"))
        assert await next_round() == {"index": "not built"}
        trouble.clear()
        assert await next_round() == {}


async def test_the_pages_answer_on_loopback(health, clock) -> None:
    port = await health.serve()
    try:
        async with ClientSession(f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/live")).status == 200
            assert (await client.get("/ready")).status == 200
            assert live(health, clock, 1000, flows=False)
            assert not live(health, clock, 2000, flows=False)
            async with client.get("/live") as answer:
                assert answer.status == 503
                assert json.loads(await answer.text()) == {"live": False, "reason": "no flow of records for 1000 s"}
            assert live(health, clock, 2000)
            errors = metrics.SERVER_ERRORS.labels("kafka")._value.get()
            health.report_away(TimeoutError("gone"), server="kafka")
            async with client.get("/ready") as answer:
                assert answer.status == 503
                assert json.loads(await answer.text())["problems"] == {"kafka": "gone"}
            async with client.get("/metrics") as answer:
                text = await answer.text()
        assert 'tastewave_waiting{server="kafka"} 1.0' in text
        assert f'tastewave_server_errors_total{{server="kafka"}} {errors + 1}' in text
        assert 'tastewave_release_info{release="abc",role="tracks"} 1.0' in text
    finally:
        await health.stop()


async def test_a_port_that_is_taken_is_one_sentence(health) -> None:
    port = await health.serve()
    second = new_health(port)
    try:
        with pytest.raises(SettingsError, match="TASTEWAVE_HEALTH_PORT"):
            await second.serve()
    finally:
        await second.stop()
        await health.stop()
