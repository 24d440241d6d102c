"""Listens workers that are killed, joined, slowed down or cut off: every user ends as in a run without faults.

Every test publishes the same listens, in an order of its own, and a run without faults is made once.
"""

import json
import os
import random
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from deploy.local import Kafka, Redis
from models.events import Listen
from tests.conftest import MadeOnce, Servers, TowerOf
from tests.platform import taste
from tests.platform.clock import until
from tests.platform.listens import TRACKS, ListenPlatform, UserEnd, made_up_listens
from tests.platform.tracks import worker_environment

pytestmark = pytest.mark.servers
LISTENS = made_up_listens()
USERS = sorted({one.user_id for one in LISTENS})
STRANGER = b"no listen"
PRODUCTION = Path(__file__).parents[2] / "deploy" / "docs" / "production.md"
Make = Callable[..., ListenPlatform]
SLOW = """
import time
from stream.cli import cli
from stream.listens.handler import ListenHandler

handle_batch, slept = ListenHandler.handle_batch, []

async def slow(self, records):
    if not slept:
        slept.append(True)
        print("it sleeps", flush=True)
        time.sleep(12)  # longer than the session timeout, and nothing else runs meanwhile
    await handle_batch(self, records)

ListenHandler.handle_batch = slow
cli()
"""


@pytest.fixture(scope="module")
def release(made_once: MadeOnce, tower_of: TowerOf) -> Path:
    tower = tower_of(TRACKS[:30], history=20)
    return made_once("release-of-faults", lambda folder: taste.write_release(folder, tower))


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


class Publishing:
    """All listens, to be published piece by piece in an order of the test's own."""

    def __init__(self, platform: ListenPlatform, *, seed: int) -> None:
        listens: list[Listen | bytes] = [*LISTENS, STRANGER]
        random.Random(seed).shuffle(listens)
        self._platform = platform
        self._pieces = [listens[number::20] for number in range(20)]

    def some(self, pieces: int = 1) -> None:
        """Publish a piece, or more of them."""
        for _ in range(pieces):
            self._platform.listen(self._pieces.pop())

    def see_it_go_on(self) -> None:
        """Publish a piece, and return when something more was embedded."""
        before = self._embedded()
        self.some()
        until(lambda: self._embedded() > before)

    def rest(self) -> None:
        """Publish what is left, which has to be something."""
        assert self._pieces
        self.some(len(self._pieces))

    def _embedded(self) -> int:
        """A number that grows with each embedding that is written."""
        return sum(held.revision for user in USERS if (held := self._platform.user(user)))


def assert_ended_as(expected: dict[str, UserEnd], platform: ListenPlatform) -> None:
    platform.settled()
    ends = platform.ends(USERS)
    assert [(user, ends[user], expected[user]) for user in USERS if ends[user] != expected[user]] == []
    assert {(letter["value"], letter["reason"]) for letter in platform.dead_letters()} == {
        (STRANGER, "malformed_event")
    }


def problems(platform: ListenPlatform) -> dict[str, str]:
    status, report = platform.health("/ready")
    return json.loads(report)["problems"] if status else {}


def partitions(platform: ListenPlatform, number: int) -> int:
    """How many partitions a worker reads."""
    status, report = platform.health("/ready", number)
    return len(json.loads(report)["partitions"]) if status == 200 else -1


def test_after_kills_in_mid_batch(make: Make, expected: dict[str, UserEnd]) -> None:
    platform, chance = make(kafka_instance_id="one"), random.Random(1)  # whose partitions wait for it
    publishing = Publishing(platform, seed=1)
    for _ in range(4):
        worker = platform.start_worker()
        publishing.see_it_go_on()
        publishing.some(3)
        threading.Event().wait(chance.uniform(0.0, 0.3))
        worker.send_signal(signal.SIGKILL)
        worker.wait(30)
    publishing.rest()
    platform.start_worker()
    assert_ended_as(expected, platform)


def test_after_the_broker_was_killed_and_came_back(make: Make, kafka: Kafka, expected: dict[str, UserEnd]) -> None:
    platform = make(kafka=kafka)
    publishing = Publishing(platform, seed=2)
    platform.start_worker()
    publishing.see_it_go_on()
    publishing.some(3)
    kafka.kill()
    kafka.restart()
    publishing.see_it_go_on()
    publishing.rest()
    assert_ended_as(expected, platform)


def test_after_redis_was_killed_and_came_back(make: Make, redis_server: Redis, expected: dict[str, UserEnd]) -> None:
    platform = make(redis=redis_server)
    publishing = Publishing(platform, seed=3)
    platform.start_worker()
    for _ in range(2):
        publishing.see_it_go_on()
        publishing.some(3)
        redis_server.kill()
        until(lambda: "redis" in problems(platform))
        publishing.some(2)
        redis_server.restart()
        platform.until_ready()
    publishing.rest()
    assert_ended_as(expected, platform)


def test_after_a_third_worker_joined_and_another_left(make: Make, expected: dict[str, UserEnd]) -> None:
    platform = make()
    publishing = Publishing(platform, seed=4)
    for number in range(3):
        platform.start_worker()
        until(lambda number=number: partitions(platform, number) > 0)
        publishing.see_it_go_on()
        publishing.some(3)
    platform.workers[0].send_signal(signal.SIGTERM)
    publishing.rest()
    assert platform.workers[0].wait(30) == 0
    assert_ended_as(expected, platform)


def test_after_a_batch_that_took_longer_than_the_session_timeout(make: Make, expected: dict[str, UserEnd]) -> None:
    platform = make()
    publishing = Publishing(platform, seed=5)
    publishing.some(5)
    platform.start_worker(program=(sys.executable, "-c", SLOW))
    until(lambda: "it sleeps" in platform.worker_log(0))
    platform.start_worker()
    publishing.see_it_go_on()
    publishing.rest()
    assert_ended_as(expected, platform)


def test_while_redis_refuses_the_workers_user_listens_wait(
    make: Make, servers: Servers, expected: dict[str, UserEnd]
) -> None:
    """The user has the rights that the documents ask for, and no others."""
    rights = re.search(r"^ACL SETUSER tastewave on >PASSWORD (.+)$", PRODUCTION.read_text(), re.MULTILINE)
    assert rights
    url = servers.redis.url.replace("redis://", "redis://limited:secret-word@")
    platform = make()
    publishing = Publishing(platform, seed=6)
    with redis.Redis.from_url(servers.redis.url) as admin:
        admin.execute_command("ACL SETUSER", "limited", "on", ">secret-word", *rights[1].split())
        platform.start_worker(redis_url=url)
        publishing.see_it_go_on()
        admin.execute_command("ACL SETUSER", "limited", "-evalsha")
        publishing.some(3)
        assert "evalsha" in until(lambda: problems(platform).get("redis"))
        admin.execute_command("ACL SETUSER", "limited", "+evalsha")
        platform.until_ready()
        publishing.rest()
        assert_ended_as(expected, platform)
        admin.acl_deluser("limited")
