"""The real Kafka and Redis of a test run, servers that a test may hurt, and what a run makes once."""

import gc
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from deploy.local import Kafka, Redis
from deploy.local.process import locked

pytest.register_assert_rewrite("tests.platform")  # its assertions show what they compared, as those of test modules do
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests of all processes share the cores: more threads only wait
hypothesis.settings.register_profile("shared cores", deadline=None)  # and an example may wait for one
hypothesis.settings.load_profile("shared cores")
gc.disable()  # until the tests are collected: looking over what stays took 3 of 20 s


MadeOnce = Callable[[str, Callable[[Path], object]], Path]
TowerOf = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of faults take longest. They come first, so that no process still runs one when the others have ended."""
    items.sort(key=lambda item: not re.search("faults|hostile", item.path.name))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@dataclass(frozen=True)
class Servers:
    """One Kafka and one Redis, shared by the tests of one pytest process."""

    kafka: Kafka
    redis: Redis


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A Kafka and a Redis for the tests of this pytest process (each xdist worker has its own pair)."""
    kafka, redis = Kafka(), Redis()
    try:
        kafka.launch()
        redis.launch()
        redis.wait()
        kafka.wait()
        yield Servers(kafka, redis)
    finally:
        kafka.close()
        redis.close()


@pytest.fixture
def environment(servers: Servers, request: pytest.FixtureRequest) -> dict[str, str]:
    """TASTEWAVE_* variables for one test on the shared servers: an empty Redis, and a topic prefix of its own."""
    import redis

    with redis.Redis.from_url(servers.redis.url) as client:
        client.flushall()
    prefix = f"{re.sub(r'[^A-Za-z0-9]+', '-', request.node.name)[:60]}-{os.urandom(3).hex()}."
    return {
        "TASTEWAVE_KAFKA_BROKERS": servers.kafka.brokers,
        "TASTEWAVE_REDIS_URL": servers.redis.url,
        "TASTEWAVE_TOPIC_PREFIX": prefix,
    }


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    """A started broker that belongs to one test, which may kill, pause or restart it."""
    with Kafka() as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """A started Redis that belongs to one test, which may kill, pause or restart it."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Makes a folder of a name once for all pytest processes of this run. No test may change what is in it.

    made_once(name, make) calls make(folder) where no process has done so, and returns the folder.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = shared / name, shared / f"{name}.made"
        with locked(shared / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                made.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def tower_of(made_once: MadeOnce) -> TowerOf:
    """A user tower of random weights that knows these tracks, made once. Those of one history share their network."""
    from tests.platform import taste

    def tower_of(track_ids: Iterable[str], *, history: int = 50) -> Path:
        ids = sorted(track_ids)
        name = f"tower-{history}-{hashlib.sha256(repr(ids).encode()).hexdigest()[:12]}"
        first = made_once(f"tower-{history}", lambda folder: taste.write_tower(folder, ["any"], history=history))
        return made_once(name, lambda folder: taste.with_tracks(first, folder, ids))

    return tower_of
