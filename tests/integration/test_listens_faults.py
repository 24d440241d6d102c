"""Listens workers that are killed, joined, slowed down or cut off: every user ends as in a run without faults.

Every test publishes the same listens, in an order of its own. A run without faults is made once.
"""

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from deploy.local import Kafka, Redis
from models.events import Listen
from tests.conftest import Servers
from tests.platform import taste
from tests.platform.clock import until
from tests.platform.listens import TRACKS, ListenPlatform, UserEnd, made_up_listens
from tests.platform.tracks import worker_environment

pytestmark = pytest.mark.servers
LISTENS = made_up_listens()
USERS = sorted({one.user_id for one in LISTENS})
STRANGER = b"no listen"
Make = Callable[..., ListenPlatform]
SLOW = """
import time
from stream.cli import cli
from stream.listens.handler import ListenHandler

handle_batch, slept = ListenHandler.handle_batch, []

async def slow(self, records):
    if not slept:
        slept.append(True)
        time.sleep(12)  # longer than the session timeout, and nothing else runs meanwhile
    await handle_batch(self, records)

ListenHandler.handle_batch = slow
cli()
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    return taste.write_release(folder / "release", taste.write_tower(folder / "tower", TRACKS[:30], history=20))


def platform_on(servers: Servers, release: Path, folder: Path, **settings: str) -> ListenPlatform:
    environment = {
        "TASTEWAVE_KAFKA_BROKERS": servers.kafka.brokers,
        "TASTEWAVE_REDIS_URL": servers.redis.url,
        "TASTEWAVE_TOPIC_PREFIX": f"faults-{os.urandom(4).hex()}.",
        "TASTEWAVE_RELEASE": str(release),
        "TASTEWAVE_USER_HISTORY": "30",
        "TASTEWAVE_USER_FEEDBACK": "12",
        **{f"TASTEWAVE_{name.upper()}": value for name, value in settings.items()},
    }
    return ListenPlatform(worker_environment(environment, folder), folder)


@pytest.fixture(scope="module")
def expected(servers: Servers, release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, UserEnd]:
    """What each user ends with where nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    url = servers.redis.url.removesuffix("/0") + "/7"
    with closing(platform_on(servers, release, folder, redis_url=url)) as platform:
        platform.listen([*LISTENS, STRANGER])
        platform.start_worker()
        platform.settled()
        ends = platform.ends(USERS)
    assert len(ends) == 40
    assert {len(end.history) for end in ends.values()} == {30}
    assert max(len(end.feedback) for end in ends.values()) == 12
    return ends


@pytest.fixture
def make(servers: Servers, release: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes the platform of a test, which must not hurt the servers, or has its own."""
    platforms = []

    def make(*, kafka: Kafka | None = None, redis: Redis | None = None, **settings: str) -> ListenPlatform:
        own = Servers(kafka or servers.kafka, redis or servers.redis)
        platforms.append(platform_on(own, release, tmp_path, **settings))
        platforms[-1].redis.flushdb()
        return platforms[-1]

    yield make
    for platform in platforms:
        platform.close()


@contextmanager
def listening(platform: ListenPlatform, *, seed: int) -> Iterator[threading.Event]:
    """Publish all listens in pieces while the block runs, in an order of the test's own; the event is set at the end.

    While Kafka is away a piece waits.
    """
    listens: list[Listen | bytes] = [*LISTENS, STRANGER]
    random.Random(seed).shuffle(listens)
    ended, hurry = threading.Event(), threading.Event()

    def publish() -> None:
        for first in range(0, len(listens), 100):
            platform.listen(listens[first : first + 100])
            hurry.wait(0.2)
        ended.set()

    with ThreadPoolExecutor(1) as executor:
        publishing = executor.submit(publish)
        try:
            yield ended
        finally:
            hurry.set()
        publishing.result()


def assert_ended_as(expected: dict[str, UserEnd], platform: ListenPlatform) -> None:
    platform.settled()
    ends = platform.ends(USERS)
    assert [(user, ends[user], expected[user]) for user in USERS if ends[user] != expected[user]] == []
    assert {(letter["value"], letter["reason"]) for letter in platform.dead_letters()} == {
        (STRANGER, "malformed_event")
    }


def embedded(platform: ListenPlatform) -> int:
    """A number that grows with each embedding that is written."""
    return sum(held.revision for user in USERS if (held := platform.user(user)))


def goes_on(platform: ListenPlatform) -> None:
    """Return when something more was embedded."""
    before = embedded(platform)
    until(lambda: embedded(platform) > before)


def test_after_kills_in_mid_batch(make: Make, expected: dict[str, UserEnd]) -> None:
    platform, chance = make(kafka_instance_id="one"), random.Random(1)  # whose partitions wait for it
    with listening(platform, seed=1):
        for _ in range(4):
            worker = platform.start_worker()
            goes_on(platform)
            threading.Event().wait(chance.uniform(0.0, 0.4))
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
    platform.start_worker()
    assert_ended_as(expected, platform)


def test_after_the_broker_was_killed_and_came_back(make: Make, kafka: Kafka, expected: dict[str, UserEnd]) -> None:
    platform = make(kafka=kafka)
    platform.start_worker()
    with listening(platform, seed=2):
        goes_on(platform)
        kafka.kill()
        kafka.restart()
        goes_on(platform)
    assert_ended_as(expected, platform)


def test_after_redis_was_killed_and_came_back(make: Make, redis_server: Redis, expected: dict[str, UserEnd]) -> None:
    platform = make(redis=redis_server)
    platform.start_worker()
    with listening(platform, seed=3):
        for _ in range(2):
            goes_on(platform)
            redis_server.kill()
            until(lambda: "redis" in problems(platform))
            redis_server.restart()
            platform.until_ready()
    assert_ended_as(expected, platform)


def problems(platform: ListenPlatform) -> dict[str, str]:
    status, report = platform.health("/ready")
    return json.loads(report)["problems"] if status else {}


def test_after_a_third_worker_joined_and_another_left(make: Make, expected: dict[str, UserEnd]) -> None:
    platform = make()
    with listening(platform, seed=4):
        for number in range(3):
            platform.start_worker()
            until(lambda number=number: partitions(platform, number) == -(-3 // (number + 1)))
            goes_on(platform)
        platform.workers[0].send_signal(signal.SIGTERM)
        assert platform.workers[0].wait(30) == 0
    assert_ended_as(expected, platform)


def partitions(platform: ListenPlatform, number: int) -> int:
    """How many partitions a worker has."""
    status, report = platform.health("/ready", number)
    return len(json.loads(report)["partitions"]) if status == 200 else -1


def test_after_a_batch_that_took_longer_than_the_session_timeout(make: Make, expected: dict[str, UserEnd]) -> None:
    platform = make()
    slow: Sequence[str] = (sys.executable, "-c", SLOW)
    platform.listen(LISTENS[:1000])
    platform.start_worker(program=slow)
    platform.until_ready(0)
    platform.start_worker()
    with listening(platform, seed=5):
        goes_on(platform)
    assert_ended_as(expected, platform)


def test_while_redis_refuses_the_workers_user_listens_wait(
    make: Make, servers: Servers, expected: dict[str, UserEnd]
) -> None:
    url = servers.redis.url.replace("redis://", "redis://limited:secret-word@")
    with redis.Redis.from_url(servers.redis.url) as admin:
        admin.acl_setuser("limited", enabled=True, passwords=["+secret-word"], keys=["*"], commands=["+@all"])
        platform = make()
        platform.start_worker(redis_url=url)
        with listening(platform, seed=6):
            goes_on(platform)
            admin.acl_setuser("limited", commands=["-evalsha"])
            assert (
                "NOPERM" in until(lambda: problems(platform).get("redis"))
                or "permission" in problems(platform)["redis"]
            )
            admin.acl_setuser("limited", commands=["+evalsha"])
            platform.until_ready()
        assert_ended_as(expected, platform)
        admin.acl_deluser("limited")
