"""The whole path of listens on real servers: how fast, how late, how much memory, and where the time goes.

The load is made up: 20,000 users and 50,000 tracks, both by Zipf's law (exponent 1). The topic is filled first and then
drained, so that who fills it is not the limit. Where a machine is shared, CPU by listen is more robust than a rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import click
import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # for tests.platform

from models.contract import LISTENS, USERS_EMBEDDED  # noqa: E402
from models.events import Listen, UserEmbedded, encode_event  # noqa: E402
from models.release import load_release  # noqa: E402
from tests.platform import taste  # noqa: E402

TASTEWAVE = Path(sys.executable).with_name("tastewave")
MIB = 2**20
USERS, TRACKS, PARTITIONS = 20_000, 50_000, 12
DRAINED = 600_000
BIG_TABLE = 1_000_000
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

    def draw(self, count: int, *, of_one: float = 0.0) -> list[Listen]:
        """So many listens; a share of them `of_one` account."""
        rng = self._rng
        users, tracks = (rng.choice(len(p), count, p=p).tolist() for p in (self._users, self._tracks))
        users = np.where(rng.random(count) < of_one, 0, users).tolist()
        kinds = rng.choice(["play", "skip", "like", "dislike"], count, p=[0.8, 0.14, 0.05, 0.01]).tolist()
        played = rng.integers(0, 210_000, count).tolist()
        at_ms = self._at
        self._at += 10 * count
        return [
            Listen(
                event_id=f"{number:032x}", user_id=f"user-{user:08d}", track_id=track_id(track), kind=kind,
                at=at_ms + 10 * number, played_ms=ms, duration_ms=210_000,
            )
            for number, (user, track, kind, ms) in enumerate(zip(users, tracks, kinds, played, strict=True))
        ]  # fmt: skip


def _zipf(rng: np.random.Generator, count: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, count + 1) ** -exponent
    rng.shuffle(weights)
    return weights / weights.sum()


class Rig:
    """Kafka, Redis and workers of its own; a context manager."""

    def __init__(self, folder: Path) -> None:
        from deploy.local import Kafka, Redis

        self.folder = folder
        self.kafka, self.redis = Kafka(), Redis()

    def __enter__(self) -> Self:
        from kafka import KafkaAdminClient

        self.kafka.start()
        self.redis.start()
        self._environment = os.environ | {
            "TASTEWAVE_KAFKA_BROKERS": self.kafka.brokers,
            "TASTEWAVE_REDIS_URL": self.redis.url,
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

    def release(self, *, pooling: str = "mean", tracks: int = TRACKS) -> Path:
        """A release with a tower that knows so many tracks."""
        folder = self.folder / f"{pooling}-{tracks}"
        tower = taste.write_tower(folder / "tower", map(track_id, range(tracks)), pooling=pooling)
        return taste.write_release(folder / "release", tower)

    def fill(self, listens: list[Listen]) -> None:
        """Publish listens as fast as Kafka takes them."""
        asyncio.run(self.publish(iter([listens])))

    async def publish(self, pieces: Iterator[list[Listen]], *, every_s: float = 0.0) -> None:
        """Publish pieces of listens at a steady pace."""
        from aiokafka import AIOKafkaProducer

        async with AIOKafkaProducer(bootstrap_servers=self.kafka.brokers, max_batch_size=500_000) as producer:
            due = time.monotonic()
            for listens in pieces:
                await asyncio.gather(*[
                    delivery
                    for partition, batch in self._batches(producer, listens)
                    for delivery in [await producer.send_batch(batch, LISTENS, partition=partition)]
                ])  # fmt: skip
                due += every_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _batches(self, producer: Any, listens: list[Listen]) -> Iterator[tuple[int, Any]]:
        """Batches as Kafka keeps them, each with its partition: quicker than a record after the other."""
        partitions = dict[int, Any]()
        for listen in listens:
            partition = int(listen.user_id[-8:]) % PARTITIONS
            record = {"key": listen.user_id.encode(), "value": encode_event(listen), "timestamp": None}
            batch = partitions.get(partition) or partitions.setdefault(partition, producer.create_batch())
            if batch.append(**record) is None:
                yield partition, batch
                batch = partitions[partition] = producer.create_batch()
                batch.append(**record)
        yield from partitions.items()

    @contextlib.contextmanager
    def worker(self, release: Path) -> Iterator[psutil.Process]:
        log = self.folder / f"worker-{uuid4().hex}.log"
        with log.open("wb") as file:
            environment = self._environment | {"TASTEWAVE_RELEASE": str(release)}
            process = subprocess.Popen([TASTEWAVE, "worker", "listens"], env=environment, stderr=file, stdout=file)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)

    def until_committed(self, release: Path, count: int) -> tuple[float, int]:
        """Wait until so many listens are committed; returns when (monotonic), and how many are.

        /metrics is not asked: answering takes a worker as long as some hundred listens.
        """
        group = f"tastewave.listens.{load_release(release).release_id}"
        silent_since, before = time.monotonic(), -1
        while True:
            (offsets,) = self._admin.list_group_offsets(group).values()
            done, now = sum(max(0, one.offset) for one in offsets.values()), time.monotonic()
            if done >= count:
                return now, done
            if done != before:
                silent_since, before = now, done
            if now - silent_since > 120:
                raise click.ClickException(f"nothing done for 120 s, {done} of {count} listens")
            time.sleep(0.1)

    def waits_ms(self, since_ms: int) -> list[int]:
        """From a user's newest listen to the embedding on Kafka, for each embedding since then."""
        from kafka import KafkaConsumer, TopicPartition

        with contextlib.closing(KafkaConsumer(bootstrap_servers=self.kafka.brokers)) as consumer:
            places = [TopicPartition(USERS_EMBEDDED, number) for number in range(PARTITIONS)]
            consumer.assign(places)
            for place, found in consumer.offsets_for_times(dict.fromkeys(places, since_ms)).items():
                consumer.seek(place, found.offset) if found else consumer.seek_to_end(place)
            ends, waits = consumer.end_offsets(places), list[int]()
            while any(consumer.position(place) < ends[place] for place in places):
                for records in consumer.poll(timeout_ms=500).values():
                    waits += [
                        record.timestamp - msgspec.json.decode(record.value, type=UserEmbedded).event_time
                        for record in records
                    ]
            return waits


def cpu_s(*processes: psutil.Process) -> dict[int, float]:
    """Seconds of CPU of processes up to now, and of their threads, by id."""
    spent = {one.pid: sum(one.cpu_times()[:2]) for one in processes}
    return spent | {one.id: one.user_time + one.system_time for one in processes[0].threads()[1:]}


def drain(rig: Rig, release: Path, count: int) -> Figures:
    """Listens a second of a worker that drains a full topic, what each costs of CPU, and the worker's memory."""
    import redis

    servers = [psutil.Process(one._process.pid) for one in (rig.kafka, rig.redis)]
    with rig.worker(release) as worker, redis.Redis.from_url(rig.redis.url) as client:
        began, first = rig.until_committed(release, 1)
        client.config_resetstat()
        before, memory = cpu_s(worker, *servers), list[float]()
        ended, last = began, first
        for quarter in (1, 2, 3, 4):
            ended, last = rig.until_committed(release, count * quarter // 4)
            memory.append(worker.memory_full_info().uss / MIB)
        spent = {pid: seconds - before.get(pid, 0.0) for pid, seconds in cpu_s(worker, *servers).items()}
        commands = client.info("commandstats")
        listens = last - first
        threads = sorted((spent[one.id] for one in worker.threads()[1:]), reverse=True)
        reads, embeds = min(threads[:2]), max(threads[:2])  # the consumer's thread and the tower's
        process, (kafka, server) = spent[worker.pid], (spent[one.pid] for one in servers)
    us = {
        "worker": process, "worker: reading Kafka": reads, "worker: embedding": embeds,
        "worker: decoding, Redis client, publishing": process - reads - embeds, "Kafka": kafka, "Redis": server,
    }  # fmt: skip
    calls = {name.removeprefix("cmdstat_"): one["usec"] / listens for name, one in commands.items()}
    return {
        "listens_per_s": listens / (ended - began),
        "us_of_cpu": {name: 1e6 * seconds / listens for name, seconds in us.items()},
        "us_of_redis_commands": {name: us for name, us in calls.items() if us > 0.1},
        "private_mib": memory,
    }


def paced(rig: Rig, release: Path, load: Load, *, per_s: float, seconds: float) -> list[int]:
    """Milliseconds from listens that come at a steady rate to embeddings."""
    every_s = 0.05
    # Drawn before, or drawing would take the worker's cores; dated when they are sent.
    drawn = [load.draw(int(per_s * every_s)) for _ in range(int(seconds / every_s))]

    def pieces() -> Iterator[list[Listen]]:
        for listens in drawn:
            now_ms = time.time_ns() // 1_000_000
            yield [msgspec.structs.replace(listen, at=now_ms) for listen in listens]

    with rig.worker(release):
        rig.fill(load.draw(PARTITIONS * 10))
        rig.until_committed(release, DRAINED + PARTITIONS * 10)
        since_ms = time.time_ns() // 1_000_000
        asyncio.run(rig.publish(pieces(), every_s=every_s))
        rig.until_committed(release, DRAINED + PARTITIONS * 10 + sum(map(len, drawn)))
    return rig.waits_ms(since_ms)


def listens(folder: Path) -> Figures:
    """Listens/s by pooling and with a busy account, event to embedding at 70 % of it, memory, where the time goes."""
    load, figures = Load(), dict[str, Any]()
    with Rig(folder) as rig:
        mean = rig.release()
        rig.fill(load.draw(DRAINED))
        for name, release in {"mean": mean, "attention": rig.release(pooling="attention")}.items():
            figures[name] = drained = drain(rig, release, DRAINED)
            _show(name, drained)
        waits = paced(rig, mean, load, per_s=0.7 * figures["mean"]["listens_per_s"], seconds=20)
        figures["late_ms"] = {"p50": statistics.median(waits), "p99": statistics.quantiles(waits, n=100)[98]}
        p50, p99 = figures["late_ms"].values()
        print(f"listen to embedding, 70 % load  {p50:8.0f} ms p50, {p99:.0f} ms p99  (mark: under 1000)")
        big = rig.release(tracks=BIG_TABLE)
        with rig.worker(big) as worker:
            rig.until_committed(big, DRAINED // 2)
            memory = worker.memory_full_info()
        figures["big_table"] = {"private_mib": memory.uss / MIB, "shared_mib": (memory.rss - memory.uss) / MIB}
        print(f"a table of {BIG_TABLE:,} tracks     {memory.uss / MIB:8.0f} MiB private, "
              f"{(memory.rss - memory.uss) / MIB:.0f} MiB shared")  # fmt: skip
    with Rig(folder / "busy") as rig:
        release = rig.release()
        rig.fill(load.draw(DRAINED, of_one=0.5))
        figures["busy_account"] = drain(rig, release, DRAINED)
        _show("half of one account", figures["busy_account"])
    print(f"load of the machine             {os.getloadavg()[0]:8.1f} on {os.cpu_count()} cores")
    return figures


def _show(name: str, drained: Figures) -> None:
    of_cpu, memory = drained["us_of_cpu"], drained["private_mib"]
    print(f"{name:<32}{drained['listens_per_s']:8,.0f} listens/s; us of CPU by listen: "
          + ", ".join(f"{part} {us:.1f}" for part, us in of_cpu.items()))  # fmt: skip
    print(f"  private memory, by quarter    {', '.join(f'{mib:.0f}' for mib in memory)} MiB")


PARTS = {"listens": listens}
