"""Faults of brokers and workers: each test ends with the answers of a run without the fault.

While Kafka is away every worker says so once, is not ready but live, writes little, and goes on by itself afterwards.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.local import Kafka, KafkaCluster
from models.contract import TRACKS_TAGGED, TRACKS_UPLOADED
from tests.platform.clock import until
from tests.platform.load import uploading
from tests.platform.music import write_catalogue
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers
SESSION_TIMEOUT_S, REQUEST_TIMEOUT_S = 10.0, 15.0  # as stream/broker/app.py sets them
PARTITIONS = 3  # as worker_environment sets it
UPLOAD_EVERY_S = 0.2
LINES_PER_MINUTE = 60
# At SIGUSR1 a worker started with this program blocks its event loop, as a handler that does not return would. Its
# threads go on.
BLOCKS_AT_SIGUSR1 = f"""
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep({1.5 * SESSION_TIMEOUT_S}))
from stream.cli import main
main()
"""


def on(brokers: str, environment: dict[str, str], folder: Path, **settings: str) -> Iterator[Platform]:
    own = {"TASTEWAVE_KAFKA_BROKERS": brokers} | {
        f"TASTEWAVE_{name.upper()}": value for name, value in settings.items()
    }
    platform = Platform(worker_environment(environment, folder) | own, folder)
    yield platform
    platform.close()


@pytest.fixture
def fragile(environment: dict[str, str], kafka: Kafka, tmp_path: Path) -> Iterator[Platform]:
    """A platform whose broker the test may hurt; its topics have one partition."""
    yield from on(kafka.brokers, environment, tmp_path, topic_partitions="1")


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def replicated(environment: dict[str, str], cluster: KafkaCluster, tmp_path: Path) -> Iterator[Platform]:
    """A platform on three brokers, of which the test may hurt one."""
    yield from on(cluster.brokers, environment, tmp_path, topic_replication="3", topic_min_insync="2")


def lines(platform: Platform, worker: int) -> list[dict]:
    return [json.loads(line) for line in platform.worker_log(worker).splitlines()]


def says(platform: Platform, worker: int, event: str, server: str) -> int:
    return sum(line["event"] == event and line.get("server") == server for line in lines(platform, worker))


def kafka_is_away(platform: Platform, worker: int) -> bool:
    status, report = platform.health("/ready", worker)
    return status == 503 and "kafka" in json.loads(report)["problems"]


def until_it_consumes(platform: Platform, uri: str) -> None:
    """Return when every worker is ready, and a new upload is answered."""
    for number in range(len(platform.workers)):
        platform.until_ready(number)
    platform.wait_for(platform.upload(uri))


def through_outage(platform: Platform, *, hurt: Callable[[], None], heal: Callable[[], None], seconds: float) -> None:
    """Take Kafka away for at least so long, and check what every worker of the platform says and does meanwhile."""
    workers = range(len(platform.workers))
    for number in workers:
        platform.until_ready(number)
        assert says(platform, number, "server.away", "kafka") == 0
    before = [len(lines(platform, number)) for number in workers]

    hurt()
    ends = time.monotonic() + seconds
    try:
        for number in workers:
            until(lambda number=number: kafka_is_away(platform, number), timeout_s=30)
        while time.monotonic() < ends:
            for number in workers:
                assert kafka_is_away(platform, number)
                assert platform.health("/live", number)[0] == 200
            time.sleep(0.5)
    finally:
        heal()  # even after a failure, or the producer's thread would wait for Kafka

    for number in workers:
        platform.until_ready(number)
        assert platform.workers[number].poll() is None
        assert says(platform, number, "server.away", "kafka") == says(platform, number, "server.back", "kafka") == 1
        written = [line for line in lines(platform, number)[before[number] :] if line["event"] != "track.failed"]
        assert len(written) <= LINES_PER_MINUTE * (1 + seconds // 60)


def partitions(platform: Platform, worker: int) -> int:
    """How many partitions of uploads a worker has; 0 where it does not answer."""
    status, report = platform.health("/ready", worker)
    return sum(TRACKS_UPLOADED in name for name in json.loads(report)["partitions"]) if status else 0


@contextmanager
def fault(platform: Platform) -> Iterator[str]:
    """Upload all the time while the block makes a fault, then wait for a new answer. Yields the URI of a track."""
    catalogue = write_catalogue(platform.folder)
    with uploading(platform, catalogue, every_s=UPLOAD_EVERY_S):
        until_it_consumes(platform, catalogue[0])
        yield catalogue[0]
        until_it_consumes(platform, catalogue[0])


@pytest.mark.parametrize("seconds", [5.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_a_broker_that_is_killed_and_comes_back_costs_nothing_but_the_time(
    fragile: Platform, undisturbed: Platform, kafka: Kafka, seconds: float
) -> None:
    for _ in range(2):  # one of them gets no partition
        fragile.start_worker()
    with fault(fragile):
        through_outage(fragile, hurt=kafka.kill, heal=kafka.restart, seconds=seconds)
    fragile.assert_ended_like(undisturbed)


def test_a_broker_that_hangs_for_twice_the_session_timeout_costs_nothing_but_the_time(
    fragile: Platform, undisturbed: Platform, kafka: Kafka
) -> None:
    fragile.start_worker()
    with fault(fragile):
        through_outage(fragile, hurt=kafka.pause, heal=kafka.resume, seconds=2 * SESSION_TIMEOUT_S)
    fragile.assert_ended_like(undisturbed)


@pytest.mark.parametrize(("hurt", "heal"), [("pause", "resume"), ("kill", "restart")])
def test_a_worker_ends_at_sigterm_while_the_broker_is_away(
    fragile: Platform, kafka: Kafka, hurt: str, heal: str
) -> None:
    drain_timeout_s = 3.0
    worker = fragile.start_worker(drain_timeout_s=str(drain_timeout_s))
    fragile.until_ready()
    fragile.wait_for(fragile.upload(write_catalogue(fragile.folder)[0]))
    getattr(kafka, hurt)()
    try:
        until(lambda: kafka_is_away(fragile, 0), timeout_s=30)
        asked = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert time.monotonic() - asked < 2 * drain_timeout_s + 2
    finally:
        getattr(kafka, heal)()
    for said in ("Traceback", "Exception", "never retrieved", "destroyed"):
        assert said not in fragile.worker_log()


def test_a_batch_that_is_damaged_on_the_broker_ends_the_worker_with_what_helps(fragile: Platform, kafka: Kafka) -> None:
    fragile.send(b"x" * 1000)
    topic = fragile.settings.topics.named(TRACKS_UPLOADED)
    kafka.pause()
    with (kafka.folder / "data" / f"{topic}-0" / "00000000000000000000.log").open("r+b") as log:
        log.seek(-500, os.SEEK_END)
        log.write(b"y")
    kafka.resume()
    worker = fragile.start_worker()
    assert worker.wait(60) == 1
    last = fragile.worker_log().strip().splitlines()[-1]
    assert last.startswith("Error: the consumer gave up (")
    assert topic in last
    assert "a restart meets the same records" in last


def leader_of_most(platform: Platform, cluster: KafkaCluster) -> Kafka:
    """The broker that coordinates the workers' group. It also leads partitions of both topics."""
    with closing(KafkaAdminClient(bootstrap_servers=cluster.brokers)) as admin:
        (offsets,), topics = (
            [topic["partitions"] for topic in admin.describe_topics(names)]
            for names in (
                ["__consumer_offsets"],
                [platform.settings.topics.named(name) for name in (TRACKS_UPLOADED, TRACKS_TAGGED)],
            )
        )
    coordinator = offsets[0]["leader_id"]
    for partitions in topics:
        assert coordinator in {partition["leader_id"] for partition in partitions}
        assert all(len(partition["isr_nodes"]) == 3 for partition in partitions)
    return cluster.node(coordinator)


def test_of_three_brokers_one_may_be_killed_while_the_worker_goes_on_answering(
    replicated: Platform, undisturbed: Platform, cluster: KafkaCluster
) -> None:
    replicated.start_worker()
    with fault(replicated) as uri:
        leader = leader_of_most(replicated, cluster)
        leader.kill()
        for _ in range(10):  # over all partitions
            replicated.wait_for(replicated.upload(uri))
        replicated.until_ready()
        leader.restart()
    replicated.assert_ended_like(undisturbed)


@pytest.mark.soak
def test_of_three_brokers_one_may_hang_and_the_worker_turns_to_the_others_by_itself(
    replicated: Platform, undisturbed: Platform, cluster: KafkaCluster
) -> None:
    replicated.start_worker()
    with fault(replicated) as uri:
        leader = leader_of_most(replicated, cluster)
        leader.pause()
        for _ in range(10):
            replicated.wait_for(replicated.upload(uri), timeout_s=6 * REQUEST_TIMEOUT_S)
        replicated.until_ready()
        leader.resume()
    assert says(replicated, 0, "server.away", "kafka") == says(replicated, 0, "server.back", "kafka") <= 3
    replicated.assert_ended_like(undisturbed)


def test_a_worker_that_is_stopped_for_longer_than_the_session_timeout_is_replaced_and_rejoins_by_itself(
    platform: Platform, undisturbed: Platform
) -> None:
    platform.start_worker()
    with fault(platform) as uri:
        zombie = platform.workers[0]
        zombie.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        platform.start_worker()
        platform.until_ready(1)
        until(lambda: partitions(platform, 1) == PARTITIONS)
        for _ in range(10):
            platform.wait_for(platform.upload(uri))
        while time.monotonic() < stopped + 1.5 * SESSION_TIMEOUT_S:
            time.sleep(0.1)
        zombie.send_signal(signal.SIGCONT)
        until(lambda: 0 < partitions(platform, 0) < PARTITIONS)
        until(lambda: partitions(platform, 0) + partitions(platform, 1) == PARTITIONS)
    assert [worker.poll() for worker in platform.workers] == [None, None]
    platform.assert_ended_like(undisturbed)


def test_an_event_loop_that_stands_still_for_longer_than_the_session_timeout_holds_its_place_and_goes_on(
    platform: Platform, undisturbed: Platform
) -> None:
    platform.start_worker(program=(sys.executable, "-c", BLOCKS_AT_SIGUSR1))
    with fault(platform):
        platform.workers[0].send_signal(signal.SIGUSR1)
        until(lambda: platform.health("/live", 0)[0] == 0)  # it does not answer: a supervisor would end it
        platform.start_worker()  # it joins the group, so a rebalance begins while the first worker cannot answer
        until(lambda: platform.health("/live", 0)[0] == 200)
        until(lambda: 0 < partitions(platform, 0) < PARTITIONS)
        until(lambda: partitions(platform, 0) + partitions(platform, 1) == PARTITIONS)
    assert [worker.poll() for worker in platform.workers] == [None, None]
    platform.assert_ended_like(undisturbed)
