"""The whole path of listens on real servers: how fast, how late, how much memory, and where the time goes.

The load is made up: 20,000 users of Zipf-skewed activity, 50,000 tracks of Zipf-skewed popularity. The topic is filled
first and drained then, so that who fills it is not the limit. Seconds of CPU are more robust than rates where a machine
is shared: they are given for the worker and for Redis, by listen.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import click
import numpy as np
import psutil
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # for tests.platform

from models.contract import LISTENS  # noqa: E402
from models.events import Listen, encode_event  # noqa: E402
from models.release import load_release  # noqa: E402
from tests.platform import taste  # noqa: E402

TASTEWAVE = Path(sys.executable).with_name("tastewave")
MIB = 2**20
USERS, TRACKS, PARTITIONS = 20_000, 50_000, 12
LISTENS_DRAINED = 600_000
Figures = dict[str, Any]


def track_id(number: int) -> str:
    """22 characters, as Spotify's ids have."""
    return f"{number:022d}"


class Load:
    """Listens of made-up users, each later than the one before it."""

    def __init__(self, *, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._users = _zipf(self._rng, USERS, 1.0)
        self._tracks = _zipf(self._rng, TRACKS, 1.0)
        self._at = 1_767_225_600_000

    def draw(self, count: int, *, now: bool = False) -> list[Listen]:
        """So many listens; dated by the clock where `now`."""
        rng = self._rng
        users, tracks = (rng.choice(len(p), count, p=p).tolist() for p in (self._users, self._tracks))
        kinds = rng.choice(["play", "skip", "like", "dislike"], count, p=[0.8, 0.14, 0.05, 0.01]).tolist()
        played = rng.integers(0, 210_000, count).tolist()
        at_ms = time.time_ns() // 1_000_000 if now else self._at
        self._at += 10 * count
        return [
            Listen(
                event_id=f"{number:032x}", user_id=f"user-{user:08d}", track_id=track_id(track), kind=kind,
                at=at_ms if now else at_ms + 10 * number, played_ms=ms, duration_ms=210_000,
            )
            for number, (user, track, kind, ms) in enumerate(zip(users, tracks, kinds, played, strict=True))
        ]  # fmt: skip


def _zipf(rng: np.random.Generator, count: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, count + 1) ** -exponent
    rng.shuffle(weights)
    return weights / weights.sum()


class Rig:
    """Kafka, Redis and workers of its own; a context manager."""

    def __init__(self, folder: Path, *, pooling: str = "mean", tracks: int = TRACKS) -> None:
        from deploy.local import Kafka, Redis

        self.folder = folder
        self.kafka, self.redis = Kafka(), Redis()
        tower = taste.write_tower(folder / f"tower-{pooling}", map(track_id, range(tracks)), pooling=pooling)
        self._release = taste.write_release(folder / f"release-{pooling}", tower)
        self._group = f"tastewave.listens.{load_release(self._release).release_id}"

    def __enter__(self) -> Self:
        from kafka import KafkaAdminClient

        self.kafka.start()
        self.redis.start()
        self._environment = os.environ | {
            "TASTEWAVE_KAFKA_BROKERS": self.kafka.brokers,
            "TASTEWAVE_REDIS_URL": self.redis.url,
            "TASTEWAVE_RELEASE": str(self._release),
            "TASTEWAVE_TOPIC_PARTITIONS": str(PARTITIONS),
            "TASTEWAVE_HEALTH_PORT": "0",
            "TASTEWAVE_LOG_FORMAT": "json",
        }
        subprocess.run([TASTEWAVE, "topics", "create"], env=self._environment, check=True, capture_output=True)
        self._admin = KafkaAdminClient(bootstrap_servers=self.kafka.brokers)
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.close()
        self.kafka.close()
        self.redis.close()

    def fill(self, listens: list[Listen]) -> None:
        """Publish listens as fast as Kafka takes them."""
        asyncio.run(self._fill(listens))

    async def _fill(self, listens: list[Listen]) -> None:
        from aiokafka import AIOKafkaProducer

        partitions: list[list[Listen]] = [[] for _ in range(PARTITIONS)]
        for listen in listens:
            partitions[int(listen.user_id[-8:]) % PARTITIONS].append(listen)
        async with AIOKafkaProducer(bootstrap_servers=self.kafka.brokers, max_batch_size=500_000) as producer:
            for partition, part in enumerate(partitions):
                batch = producer.create_batch()
                for listen in part:
                    key, value = listen.user_id.encode(), encode_event(listen)
                    if batch.append(key=key, value=value, timestamp=None) is None:
                        await producer.send_batch(batch, LISTENS, partition=partition)
                        batch = producer.create_batch()
                        batch.append(key=key, value=value, timestamp=None)
                await producer.send_batch(batch, LISTENS, partition=partition)

    @contextmanager
    def worker(self, *, program: tuple[str, ...] = (str(TASTEWAVE),), **settings: object) -> Iterator[Worker]:
        environment = self._environment | {f"TASTEWAVE_{name.upper()}": str(text) for name, text in settings.items()}
        log = self.folder / f"worker-{uuid4().hex}.log"
        with log.open("wb") as file:
            process = subprocess.Popen([*program, "worker", "listens"], env=environment, stderr=file, stdout=file)
        try:
            yield Worker(psutil.Process(process.pid), log)
        finally:
            process.terminate()
            process.wait(60)

    def until_committed(self, count: int) -> tuple[float, int]:
        """Wait until so many listens are committed; returns when (monotonic), and how many are.

        /metrics is not asked: answering takes a worker as long as some hundred listens.
        """
        silent_since, before = time.monotonic(), -1
        while True:
            (offsets,) = self._admin.list_group_offsets(self._group).values()
            done, now = sum(max(0, one.offset) for one in offsets.values()), time.monotonic()
            if done >= count:
                return now, done
            if done != before:
                silent_since, before = now, done
            if now - silent_since > 120:
                raise click.ClickException(f"nothing done for 120 s, {done} of {count} listens")
            time.sleep(0.1)

    def redis_commands(self) -> dict[str, tuple[int, float]]:
        """Calls and seconds of Redis, by command."""
        import redis

        with redis.Redis.from_url(self.redis.url) as client:
            stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): (one["calls"], one["usec"] / 1e6) for name, one in stats.items()}


class Worker:
    """A running worker, seen from outside."""

    def __init__(self, process: psutil.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self._health = ""

    def metrics(self) -> str:
        """What /metrics says; waits until it does."""
        deadline = time.monotonic() + 60
        while not self._health:
            found = re.search(r'"health": ?"([^"]+)"', self._log.read_text())
            self._health = found[1] if found else ""
            if time.monotonic() > deadline:
                raise click.ClickException(f"the worker did not start:\n{self._log.read_text()}")
            time.sleep(0.02)
        with urllib.request.urlopen(f"http://{self._health}/metrics") as scraped:
            return scraped.read().decode()

    def cpu_s(self) -> float:
        """Seconds of CPU of the process up to now."""
        times = self.process.cpu_times()
        return times.user + times.system


def drain(rig: Rig, count: int, **worker: Any) -> Figures:
    """Listens a second of one worker that drains a full topic, and what each costs of CPU."""
    with rig.worker(**worker) as running:
        began, first = rig.until_committed(1)
        cpu, server, threads = running.cpu_s(), rig.redis_commands(), _threads(running)
        cpu_of = {name: _cpu_s(psutil.Process(one._process.pid)) for name, one in servers(rig).items()}
        ended, last = rig.until_committed(count)
        cpu, after = running.cpu_s() - cpu, rig.redis_commands()
        listens = last - first
        memory = running.process.memory_full_info()
        return {
            "listens_per_s": listens / (ended - began),
            "worker_us": 1e6 * cpu / listens,
            **{
                f"{name}_us": 1e6 * (_cpu_s(psutil.Process(one._process.pid)) - cpu_of[name]) / listens
                for name, one in servers(rig).items()
            },
            "threads_us": {k: 1e6 * (v - threads.get(k, 0.0)) / listens for k, v in _threads(running).items()},
            "redis_commands_us": {
                name: 1e6 * (seconds - server.get(name, (0, 0.0))[1]) / listens
                for name, (_, seconds) in after.items()
                if seconds - server.get(name, (0, 0.0))[1] > 0.01
            },
            "uss_mib": memory.uss / MIB,
            "rss_mib": memory.rss / MIB,
            "stages": _stages(running.metrics()),
        }


def servers(rig: Rig) -> dict[str, Any]:
    return {"kafka": rig.kafka, "redis": rig.redis}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _threads(worker: Worker) -> dict[int, float]:
    return {one.id: one.user_time + one.system_time for one in worker.process.threads()}


def _stages(text: str) -> dict[str, tuple[float, float]]:
    def values(what: str) -> dict[str, float]:
        found = re.findall(rf'^tastewave_stage_seconds_{what}{{stage="(\w+)"}} (\S+)', text, re.MULTILINE)
        return {stage: float(value) for stage, value in found}

    return {stage: (total, values("count")[stage]) for stage, total in values("sum").items()}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary, Rig(Path(temporary)) as rig:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else LISTENS_DRAINED
        load = Load()
        t = time.perf_counter()
        rig.fill(load.draw(count))
        print("filled", time.perf_counter() - t, "load", os.getloadavg())
        program = (sys.executable, sys.argv[2]) if len(sys.argv) > 2 else (str(TASTEWAVE),)
        print(json.dumps(drain(rig, count, program=program), indent=1), os.getloadavg())
