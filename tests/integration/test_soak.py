"""`make soak`: half an hour at 80 % of capacity; for one minute of it the broker is away."""

import csv
import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local import Kafka, Redis
from tests.platform.clock import until
from tests.platform.music import write_catalogue, write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = [pytest.mark.servers, pytest.mark.soak, pytest.mark.timeout(3600)]
MINUTES = 30
LOAD = 0.8
PROBE = 500  # uploads to measure the capacity with
SAMPLE_EVERY_S = 5.0
SAMPLES = Path(__file__).parents[2] / "build" / "soak.csv"


@pytest.fixture
def platform(kafka: Kafka, redis_server: Redis, tmp_path: Path) -> Iterator[Platform]:
    servers = {
        "TASTEWAVE_KAFKA_BROKERS": kafka.brokers,
        "TASTEWAVE_REDIS_URL": redis_server.url,
        "TASTEWAVE_TOPIC_PREFIX": "",
    }
    platform = Platform(worker_environment(servers, tmp_path) | {"TASTEWAVE_POOL_SIZE": "2"}, tmp_path)
    yield platform
    platform.close()


def sample(worker: psutil.Process, platform: Platform) -> dict[str, float]:
    children = worker.children(recursive=True)
    zombies = sum(child.status() == psutil.STATUS_ZOMBIE for child in children)
    return {
        "main_mib": worker.memory_info().rss / 2**20,
        "pool_mib": sum(child.memory_info().rss for child in children) / 2**20,
        "descriptors": worker.num_fds(),
        "processes": len(children),
        "zombies": zombies,
        "answered": platform.redis.dbsize(),
        "log_lines": platform.worker_log().count("\n"),
    }


def test_half_an_hour_of_load_leaves_memory_descriptors_and_processes_as_they_were(
    platform: Platform, kafka: Kafka
) -> None:
    uris = write_catalogue(platform.folder)
    uris += [
        write_music(platform.folder / f"long-{number}.mp3", seed=number, seconds=30).as_uri() for number in range(4)
    ]
    worker = psutil.Process(platform.start_worker().pid)
    platform.until_ready()
    numbers = iter(range(10**6))

    def upload() -> None:
        number = next(numbers)
        platform.upload(uris[number % len(uris)], track_id=f"t{number}")

    began = time.monotonic()
    for _ in range(PROBE):
        upload()
    platform.settled()
    capacity = PROBE / (time.monotonic() - began)
    print(f"capacity {capacity:.1f} uploads/s")

    started, samples = time.monotonic(), list[dict[str, float]]()
    stop = threading.Event()

    def load() -> None:
        due = time.monotonic()
        while not stop.is_set():
            due += 1 / (LOAD * capacity)
            stop.wait(max(0.0, due - time.monotonic()))
            upload()

    loading = threading.Thread(target=load)
    loading.start()
    away: tuple[float, float] | None = None
    try:
        while (minute := (time.monotonic() - started) / 60) < MINUTES:
            samples.append({"minute": minute} | sample(worker, platform))
            if away is None and minute > MINUTES / 3:
                kafka.kill()
                stopped = time.monotonic()
                threading.Event().wait(60)
                kafka.restart()
                away = ((stopped - started) / 60, (time.monotonic() - started) / 60)
            threading.Event().wait(SAMPLE_EVERY_S)
    finally:
        stop.set()
        loading.join()
        SAMPLES.parent.mkdir(exist_ok=True)
        with SAMPLES.open("w", newline="") as file:
            rows = csv.DictWriter(file, fieldnames=samples[0])
            rows.writeheader()
            rows.writerows(samples)
    platform.settled(timeout_s=300)
    platform.until_ready()
    uploads = next(numbers)
    assert len(platform.output()) == uploads
    assert platform.workers[0].poll() is None
    failed = 2 / len(uris)  # text.mp3 and missing.wav
    assert len(platform.dead_letters()) == pytest.approx(failed * uploads, rel=0.02)

    early = [one for one in samples if 0.1 * MINUTES < one["minute"] < 0.3 * MINUTES]
    late = [one for one in samples if one["minute"] > 0.8 * MINUTES]
    for what, slack in (("main_mib", 10.0), ("pool_mib", 20.0), ("descriptors", 5.0), ("processes", 0.0)):
        first, last = (statistics.median(one[what] for one in part) for part in (early, late))
        print(f"{what}: {first:.1f} early, {last:.1f} late")
        assert last <= first + slack, what
    assert all(one["zombies"] == 0 for one in samples)
    events = [json.loads(line)["event"] for line in platform.worker_log().splitlines()]
    of_ours = [event for event in events if event != "track.failed"]  # one for each failed track
    print(f"{uploads} uploads, {len(of_ours)} log lines beside {len(events) - len(of_ours)} of failed tracks")
    assert len(of_ours) < 10 * MINUTES
    until(lambda: platform.lag() == 0)
