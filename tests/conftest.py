"""The real Kafka and Redis of a test run, and servers that a test may hurt."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.local import Kafka, Redis

pytest.register_assert_rewrite("tests.platform")  # its assertions show what they compared, as those of test modules do
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests of two processes share the cores: more threads only wait


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
