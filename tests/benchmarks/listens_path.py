"""The whole path of listens on real servers: how fast, how late, how much memory, and where the time goes.

The load is made up: 20,000 users and 50,000 tracks, both by Zipf's law (exponent 1). The topic is filled first and then
drained, so that who fills it is not the limit. Three quarters of it are measured: a worker that has read all of the
other partitions has only that of the busiest user left, and works its batches one after the other. Where a machine is
shared, CPU by listen is more robust than a rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import click
import listens_peers
import listens_steps
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
RECORDS = PARTITIONS * 12_000  # as many of each partition as the worker takes at a time
DRAINED = 768_000
MEASURED = DRAINED * 3 // 4
AWAKE = PARTITIONS * 10  # listens that show that a worker has begun
PACES, PACED_S = (5_000, 10_000, 21_000, 42_000), 15  # the last two: 70 % of the least rate, and of the aim
SHARE, TURN_S = 0.4, 0.02  # of the time, and for so long, where workers run in turn
GROUP = "tastewave.listens"
Figures = dict[str, Any]


def track_id(number: int) -> str:
    """22 characters, as Spotify's ids have."""
    return f"{number:022d}"


class Load:
    """Listens of made-up users, each later than the one before it."""

    def __init__(self, *, users: int = USERS, tracks: int = TRACKS, seed: int = 0) -> None:
        self.users = users
        self._rng = np.random.default_rng(seed)
        self._users = _zipf(self._rng, users, 1.0)
        self._tracks = _zipf(self._rng, tracks, 1.0)
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
        with self.process([str(TASTEWAVE), "worker", "listens"], release=release) as process:
            yield process

    @contextlib.contextmanager
    def process(self, command: Sequence[str], *, release: Path, **environment: str) -> Iterator[psutil.Process]:
        """A process with the settings of a worker, ended at the end."""
        log = self.folder / f"process-{uuid4().hex}.log"
        with log.open("wb") as file:
            environment = self._environment | environment | {"TASTEWAVE_RELEASE": str(release)}
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=file, stdout=file)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)

    def keep_little(self) -> None:
        """Have Kafka drop old listens and embeddings: it looks every five minutes for what it may drop."""
        from kafka.admin import ConfigResource, ConfigResourceType

        little = {"cleanup.policy": "delete", "retention.bytes": str(16 * MIB), "segment.bytes": str(4 * MIB)}
        topics = [ConfigResource(ConfigResourceType.TOPIC, name, configs=little) for name in (LISTENS, USERS_EMBEDDED)]
        self._admin.alter_configs(topics)

    def begin_anew(self, release: Path) -> None:
        """Forget all users, and what workers of the release have committed: the next one finds what the first did."""
        import redis

        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()
        group = f"{GROUP}.{load_release(release).release_id}"
        if any(found["group_id"] == group for found in self._admin.list_groups()):
            self._admin.delete_groups([group])

    def until_joined(self, release: Path, members: int) -> None:
        """Wait until so many workers share the partitions."""
        group, ends = f"{GROUP}.{load_release(release).release_id}", time.monotonic() + 60
        while time.monotonic() < ends:
            found = self._admin.describe_groups([group])[group]
            if found["group_state"] == "Stable" and len(found["members"]) == members:
                return
            time.sleep(0.1)
        raise click.ClickException(f"no {members} workers share the partitions after 60 s")

    def until_committed(self, release: Path, count: int, *, group: str = GROUP) -> tuple[float, int]:
        """Wait until so many listens are committed; returns when (monotonic), and how many are.

        /metrics is not asked: answering takes a worker as long as some hundred listens.
        """
        group = f"{group}.{load_release(release).release_id}"
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

    def published(self) -> int:
        """How many embeddings are on Kafka."""
        from kafka import KafkaConsumer, TopicPartition

        places = [TopicPartition(USERS_EMBEDDED, number) for number in range(PARTITIONS)]
        with contextlib.closing(KafkaConsumer(bootstrap_servers=self.kafka.brokers)) as consumer:
            return sum(consumer.end_offsets(places).values())

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


def cpu_s(processes: Sequence[psutil.Process]) -> dict[int, float]:
    """Seconds of CPU up to now: of processes and of their threads, by id; of the whole machine, by 0."""
    whole = psutil.cpu_times()
    spent = {0: sum(whole[:8]) - whole.idle - whole.iowait}  # what guests take is in `user` already
    for process in processes:
        spent |= {one.id: one.user_time + one.system_time for one in process.threads()}
        spent[process.pid] = sum(process.cpu_times()[:2])
    return spent


def drain(rig: Rig, release: Path, *, workers: int = 1, in_turn: bool = False) -> Figures:
    """Listens a second of workers that drain a full topic, what each costs of CPU, and the workers' memory."""
    rig.begin_anew(release)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(rig.worker(release)) for _ in range(workers)]
        rig.until_joined(release, workers)
        if in_turn:
            stack.enter_context(_in_turn(processes))
        return measured(rig, release, processes)


@contextlib.contextmanager
def _in_turn(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Let each process run for a SHARE of the time, as a quota of CPU does, and never two of them at once.

    So they do not compete for cores, and what they share beside is what could keep them from adding up.
    """
    over = threading.Event()

    def take_turns() -> None:
        for process in processes:
            process.suspend()
        while not over.is_set():
            for process in processes:
                process.resume()
                time.sleep(TURN_S)
                process.suspend()
            time.sleep(TURN_S / SHARE - TURN_S * len(processes))
        for process in processes:
            process.resume()

    turns = threading.Thread(target=take_turns)
    turns.start()
    try:
        yield
    finally:
        over.set()
        turns.join()


def drain_with_quix(rig: Rig, release: Path) -> Figures:
    """The same of a Quix Streams application that calls the same functions."""
    rig.begin_anew(release)
    with listens_peers.quix_worker(rig, release, records=RECORDS) as process:
        return measured(rig, release, [process], group=listens_peers.QUIX_GROUP)


def measured(rig: Rig, release: Path, processes: Sequence[psutil.Process], *, group: str = GROUP) -> Figures:
    """From the next commit on."""
    import redis

    kafka, server = (psutil.Process(one._process.pid) for one in (rig.kafka, rig.redis))
    with redis.Redis.from_url(rig.redis.url) as client:
        _, done = rig.until_committed(release, 0, group=group)
        began, first = rig.until_committed(release, done + 1, group=group)
        client.config_resetstat()
        before, published, memory = cpu_s([*processes, kafka, server]), rig.published(), list[float]()
        ended, last = began, first
        for quarter in (1, 2, 3, 4):
            ended, last = rig.until_committed(release, first + (MEASURED - first) * quarter // 4, group=group)
            memory.append(max(process.memory_full_info().uss for process in processes) / MIB)
        after, published = cpu_s([*processes, kafka, server]), rig.published() - published
        commands = client.info("commandstats")
    listens, took_s = last - first, ended - began
    spent = {one: seconds - before.get(one, 0.0) for one, seconds in after.items()}
    us = {"worker": sum(spent[process.pid] for process in processes)}
    if group == GROUP:
        us |= _by_thread(spent, processes)
    us |= {"Kafka": spent[kafka.pid], "Redis": spent[server.pid]}
    ours = us["worker"] + us["Kafka"] + us["Redis"]
    calls = {name.removeprefix("cmdstat_"): one["usec"] / listens for name, one in commands.items()}
    return {
        "listens_per_s": listens / took_s,
        "us_of_cpu": {name: 1e6 * seconds / listens for name, seconds in us.items()},
        "us_of_redis_commands": {name: us for name, us in calls.items() if us > 0.1},
        "embeddings_per_listen": published / listens,
        "cores": {"ours": ours / took_s, "of others": (spent[0] - ours) / took_s},
        "private_mib": memory,
    }


def _by_thread(spent: dict[int, float], processes: Sequence[psutil.Process]) -> dict[str, float]:
    """Of workers: beside the first thread, that of the consumer takes most."""
    reads = sum(max(spent.get(one.id, 0.0) for one in process.threads()[1:]) for process in processes)
    rest = sum(spent[process.pid] for process in processes) - reads
    return {"worker: reading Kafka": reads, "worker: the rest": rest}


def paced(rig: Rig, release: Path, load: Load, *, published: int, per_s: float, seconds: float) -> Figures:
    """How late embeddings are behind listens that come at a steady rate, and what a listen costs the worker.

    published: how many listens the topic holds already.
    """
    every_s = 0.05
    # Drawn before, or drawing would take the worker's cores; dated when they are sent.
    drawn = [load.draw(int(per_s * every_s)) for _ in range(int(seconds / every_s))]
    count = sum(map(len, drawn))

    def pieces() -> Iterator[list[Listen]]:
        for listens in drawn:
            now_ms = time.time_ns() // 1_000_000
            yield [msgspec.structs.replace(listen, at=now_ms) for listen in listens]

    with rig.worker(release) as worker:
        rig.fill(load.draw(AWAKE))
        rig.until_committed(release, published + AWAKE)
        since_ms, before_s, began = time.time_ns() // 1_000_000, sum(worker.cpu_times()[:2]), time.monotonic()
        asyncio.run(rig.publish(pieces(), every_s=every_s))
        sent_s = time.monotonic() - began
        rig.until_committed(release, published + AWAKE + count)
        spent_s = sum(worker.cpu_times()[:2]) - before_s
    waits = rig.waits_ms(since_ms)
    figures = {
        "sent_per_s": count / sent_s,
        "p50_ms": statistics.median(waits),
        "p99_ms": statistics.quantiles(waits, n=100)[98],
        "worker_us_of_cpu": 1e6 * spent_s / count,
        "embeddings_per_listen": len(waits) / count,
        "listens": AWAKE + count,
    }
    print(f"listen to embedding at {per_s:9,.0f}/s{figures['p50_ms']:8.0f} ms p50, {figures['p99_ms']:.0f} ms p99  "
          f"(mark: under 1000); sent at {figures['sent_per_s']:,.0f}/s; worker {figures['worker_us_of_cpu']:.1f} us of "
          f"CPU by listen, {figures['embeddings_per_listen']:.2f} embeddings a listen", flush=True)  # fmt: skip
    return figures


def latency(folder: Path) -> Figures:
    """Listen to embedding at several steady rates, with histories that are full, after the drained rate."""
    load, figures = Load(), dict[str, Any]()
    with Rig(folder) as rig:
        release, published = rig.release(), DRAINED
        rig.fill(load.draw(DRAINED))
        figures["drained"] = drained = drain(rig, release)
        _show("mean", drained)
        for per_s in (*PACES, 0.7 * drained["listens_per_s"]):
            figures[f"{per_s:,.0f}/s"] = late = paced(
                rig, release, load, published=published, per_s=per_s, seconds=PACED_S
            )
            published += late["listens"]
    print(f"load of the machine             {os.getloadavg()[0]:8.1f} on {os.cpu_count()} cores")
    return figures


def listens(folder: Path) -> Figures:
    """Listens/s by pooling, beside peers and with a busy account, event to embedding, memory, where the time goes."""
    load, figures = Load(), dict[str, Any]()
    with Rig(folder) as rig:
        mean = rig.release()
        figures["load_generator_per_s"] = _fill(rig, load)
        figures["reading_alone"] = _read_alone(rig)
        for name, release in {"mean": mean, "attention": rig.release(pooling="attention")}.items():
            figures[name] = drained = drain(rig, release)
            _show(name, drained)
        _compare(rig, mean, figures)
        rate = 0.7 * figures["mean"]["listens_per_s"]
        figures["late"] = paced(rig, mean, load, published=DRAINED, per_s=rate, seconds=PACED_S)
    with Rig(folder / "busy") as rig:
        release = rig.release()
        rig.fill(load.draw(DRAINED, of_one=0.5))
        figures["busy_account"] = drain(rig, release)
        _show("half of one account", figures["busy_account"])
    print(f"load of the machine             {os.getloadavg()[0]:8.1f} on {os.cpu_count()} cores")
    return figures


def _fill(rig: Rig, load: Load) -> float:
    """Fill the topic; returns listens a second of what makes and publishes them."""
    began = time.monotonic()
    rig.fill(load.draw(DRAINED))
    rate = DRAINED / (time.monotonic() - began)
    print(f"load generator                  {rate:8,.0f} listens/s, made and published before the rest is measured")
    return rate


def _read_alone(rig: Rig) -> Figures:
    alone = listens_peers.reading_alone(rig, MEASURED)
    for name, of_one in alone.items():
        print(f"reading alone, {name:<17}{of_one['listens_per_s']:8,.0f} listens/s; "
              f"us of CPU by listen: {of_one['us_of_cpu']:.1f}")  # fmt: skip
    return alone


def _compare(rig: Rig, mean: Path, figures: Figures) -> None:
    """The worker beside Quix Streams, and beside two of it."""
    of_mean = figures["mean"]
    rig.begin_anew(mean)
    figures["steps_us_of_cpu"] = listens_steps.steps(rig, mean)
    parts = ", ".join(f"{step} {us:.1f}" for step, us in figures["steps_us_of_cpu"].items())
    print(f"steps one by one, us of CPU by listen: {parts}")
    figures["quix"] = quix = drain_with_quix(rig, mean)
    _show("Quix Streams, same functions", quix)
    times = of_mean["listens_per_s"] / quix["listens_per_s"]
    print(f"  the worker beside it          {times:8.2f} times as fast, {_ours(of_mean) / _ours(quix):.2f} of the CPU")
    figures["two_workers"] = two = drain(rig, mean, workers=2)
    _show("two workers", two)
    times, cores = two["listens_per_s"] / of_mean["listens_per_s"], os.cpu_count() or 1
    print(f"  two beside one                {times:8.2f} times as fast (mark: 1.6); by CPU, {cores} cores of their own "
          f"end at {cores / _ours(two) * 1e6:,.0f} listens/s")  # fmt: skip
    for workers in (1, 2):
        figures[f"{workers}_in_turn"] = drain(rig, mean, workers=workers, in_turn=True)
        _show(f"{workers} in turn, {SHARE:.0%} of the time each", figures[f"{workers}_in_turn"])
    times = figures["2_in_turn"]["listens_per_s"] / figures["1_in_turn"]["listens_per_s"]
    print(f"  two beside one, in turn       {times:8.2f} times as fast (mark: 1.6)")


def _ours(drained: Figures) -> float:
    """us of CPU by listen of worker, Kafka and Redis."""
    return sum(drained["us_of_cpu"][name] for name in ("worker", "Kafka", "Redis"))


def _show(name: str, drained: Figures) -> None:
    of_cpu, cores = drained["us_of_cpu"], drained["cores"]
    memory = ", ".join(f"{mib:.0f}" for mib in drained["private_mib"])
    print(f"{name:<32}{drained['listens_per_s']:8,.0f} listens/s; us of CPU by listen: "
          + ", ".join(f"{part} {us:.1f}" for part, us in of_cpu.items()))  # fmt: skip
    print(f"  {drained['embeddings_per_listen']:.2f} embeddings a listen; {cores['ours']:.2f} cores, others had "
          f"{cores['of others']:.2f}; private memory by quarter {memory} MiB")  # fmt: skip


PARTS = {"listens": listens, "listens-latency": latency}
