"""Readiness: problems, progress against lag, and the three pages."""

import asyncio
import json

import pytest
import redis
from aiohttp import ClientSession
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP

from models.errors import SettingsError
from stream.broker.faust_driver import Progress
from stream.settings import load_settings
from stream.worker.health import Health

HERE = TP("uploads", 0)


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def health(clock) -> Health:
    health = Health(
        load_settings(health_port=0, stall_s=60.0).worker, release="abc", role="tracks", monotonic=lambda: clock[0]
    )
    health.started()
    return health


def at(health: Health, clock: list[float], now: float, next_offset: int, end_offset: int) -> bool:
    clock[0] = now
    health.checked()
    health.note_progress({HERE: Progress(next_offset, end_offset)})
    return health.report()["ready"]


def test_a_worker_that_is_starting_is_not_ready() -> None:
    report = Health(load_settings().worker, release="abc", role="tracks").report()
    assert (report["ready"], report["problems"]) == (False, {"worker": "starting"})


def test_a_worker_with_no_partition_is_ready(health, clock) -> None:
    health.note_progress({})
    assert health.report()["ready"]


def test_a_partition_with_lag_is_ready_while_it_moves_and_not_when_it_stands_still(health, clock) -> None:
    assert at(health, clock, 1000, 5, 50)
    assert at(health, clock, 1059, 5, 60)
    assert not at(health, clock, 1061, 5, 70)
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
    health.waiting("redis", ConnectionError("refused"))
    health.waiting("redis", ConnectionError("refused again"))
    assert health.report()["problems"] == {"redis": "refused again"}
    health.waiting("redis", None)
    assert health.report()["ready"]


class FakeServers:
    """An app, a store and a pool that find every server well; a record may wait for one nevertheless."""

    joined, in_flight, trouble = True, 1, None

    def __init__(self) -> None:
        self.waiting: list[BaseException] = []
        self.checks: asyncio.Queue[None] = asyncio.Queue()

    async def progress(self) -> dict[TP, Progress]:
        return {}

    async def check(self) -> None:
        self.checks.put_nowait(None)


async def test_a_server_that_answers_checks_is_not_back_before_the_records_that_wait_for_it(health) -> None:
    servers = FakeServers()
    watch = asyncio.create_task(health.watch(servers, servers, servers))

    async def next_check() -> dict[str, str]:
        for _ in range(servers.checks.qsize() + 2):  # one may have begun already
            await servers.checks.get()
        return health.report()["problems"]

    try:
        assert await next_check() == {}
        servers.waiting = [KafkaTimeoutError("late"), redis.ConnectionError("refused")]
        for error in servers.waiting:
            health.away(error)
        assert (await next_check()).keys() == {"kafka", "redis"}
        servers.waiting.pop()
        assert (await next_check()).keys() == {"kafka"}
        servers.waiting.pop()
        assert await next_check() == {}
    finally:
        watch.cancel()


async def test_the_pages_answer_on_loopback(health) -> None:
    port = await health.serve()
    try:
        async with ClientSession(f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/live")).status == 200
            assert (await client.get("/ready")).status == 200
            health.waiting("kafka", "gone")
            async with client.get("/ready") as answer:
                assert answer.status == 503
                assert json.loads(await answer.text())["problems"] == {"kafka": "gone"}
            async with client.get("/metrics") as answer:
                text = await answer.text()
        assert 'tastewave_waiting{server="kafka"} 1.0' in text
        assert 'tastewave_release_info{release="abc",role="tracks"} 1.0' in text
    finally:
        await health.stop()


async def test_a_port_that_is_taken_is_one_sentence(health) -> None:
    port = await health.serve()
    second = Health(load_settings(health_port=port).worker, release="abc", role="tracks")
    try:
        with pytest.raises(SettingsError, match="TASTEWAVE_HEALTH_PORT"):
            await second.serve()
    finally:
        await second.stop()
        await health.stop()
