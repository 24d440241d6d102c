"""Similar tracks among a million, on one core, against all scores; and the feed that fills and tells of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from stream.serve.feed import Feed

Figures = dict[str, object]
VECTORS, DIM, CLUSTERS, QUERIES, K = 1_000_000, 40, 2_000, 500, 10
TRACKS, READERS, EVENTS = 20_000, 200, 100
JUDGED = 200  # queries whose true neighbours are computed
Vectors = NDArray[np.float32]


def clustered(count: int, chance: np.random.Generator) -> Vectors:
    """Vectors of unit norm around 2,000 centres of different weight; two of a centre have a cosine of some .5."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    weights = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
    around = chance.choice(CLUSTERS, count, p=weights / weights.sum())
    vectors = centres[around] + chance.standard_normal((count, DIM), np.float32) * np.float32(1 / DIM**0.5)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def resident_mb() -> float:
    """Resident memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def timed(search: Callable[[Vectors], object], queries: Vectors) -> dict[str, float]:
    """Milliseconds of a call, by the clock and of CPU: median and 99th percentile."""
    wall, cpu = [], []
    for query in queries:
        began, spent = time.perf_counter(), time.thread_time()
        search(query)
        cpu.append((time.thread_time() - spent) * 1000)
        wall.append((time.perf_counter() - began) * 1000)
    return {
        "p50_ms": float(np.percentile(wall, 50)),
        "p99_ms": float(np.percentile(wall, 99)),
        "p50_cpu_ms": float(np.percentile(cpu, 50)),
        "p99_cpu_ms": float(np.percentile(cpu, 99)),
    }


def index(_: Path) -> Figures:
    """A million clustered vectors; the truth is each inner product, computed by numpy."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with threadpool_limits(1):  # as OPENBLAS_NUM_THREADS does in `tastewave serve`
        return _index()


def _index() -> Figures:
    from stream.serve.index import VectorIndex

    chance = np.random.default_rng(1)
    vectors, queries = clustered(VECTORS, chance), clustered(QUERIES, chance)
    labels = np.where(chance.random(VECTORS) < 0.1, 7, chance.integers(100, 200, VECTORS)).astype(np.int32)
    before_mb = resident_mb()
    held = VectorIndex(DIM)
    began, spent = time.perf_counter(), time.process_time()
    for start in range(0, VECTORS, 1000):
        rows = np.arange(start, start + 1000)
        held.put(rows, vectors[rows], labels=labels[rows])
    filled_s = time.process_time() - spent
    held.rebuild()
    built = {"build_s": time.perf_counter() - began, "build_cpu_s": time.process_time() - spent, "put_cpu_s": filled_s}
    figures: Figures = {"vectors": VECTORS, **built, "stated_mb": held.nbytes / 1e6}
    figures["resident_mb"] = resident_mb() - before_mb
    print(f"{VECTORS:,} vectors of {DIM}          built in {built['build_s']:.1f} s "
          f"({built['build_cpu_s']:.1f} of CPU, {filled_s:.1f} to put)   {figures['stated_mb']:.0f} MB "
          f"({figures['resident_mb']:.0f} resident)")  # fmt: skip
    one_by_one = timed(lambda query: vectors @ query, queries[:20])["p50_cpu_ms"]
    print(f"  every score by numpy      CPU {one_by_one:.1f} ms")
    figures["every_score_cpu_ms"] = one_by_one
    for name, label in (("all", None), ("a label of 10 %", 7), ("a label of 1 %", 107)):
        of = np.arange(VECTORS) if label is None else np.flatnonzero(labels == label)
        among = vectors[of]
        hits = 0
        for query in queries[:JUDGED]:
            scores = among @ query
            best = of[np.argpartition(-scores, K)[:K]]
            hits += len(np.intersect1d(best, held.search(query, K, label=label).rows))
        took = timed(lambda query, label=label: held.search(query, K, label=label), queries)
        recall = hits / (JUDGED * K)
        figures[name] = {"recall_at_10": recall, **took}
        print(f"  {name:<16} recall@10 {recall:.3f}   p50 {took['p50_ms']:.2f} p99 {took['p99_ms']:.2f} ms   "
              f"CPU p50 {took['p50_cpu_ms']:.2f} p99 {took['p99_cpu_ms']:.2f} ms")  # fmt: skip
    return figures


class _Platform:
    """A Kafka and a Redis with answers of two releases, and feeds that read them."""

    def __init__(self, kafka: Any, redis: Any) -> None:
        from stream.commands.topics import create_topics
        from stream.settings import load_settings

        self.settings = load_settings(kafka_brokers=kafka.brokers, redis_url=redis.url)
        create_topics(self.settings)
        self._url = redis.url
        self._vectors = clustered(TRACKS, np.random.default_rng(2))

    def tag(self, release: str, names: Iterable[str], *, genre: str = "genre 0") -> None:
        """Answers to tracks, of a size as workers publish them."""
        from kafka import KafkaProducer

        from models.events import TrackTagged, encode_event

        producer: Any = KafkaProducer(bootstrap_servers=list(self.settings.kafka.brokers), linger_ms=50)
        ranked = tuple((f"genre {number}", round(0.5 / (number + 1), 6)) for number in range(5))
        for number, name in enumerate(names):
            answer = TrackTagged(
                track_id=name, release=release, status="tagged", genre=genre, confidence=0.5, genres=ranked,
                tags=ranked, embedding=tuple(self._vectors[number % TRACKS].tolist()), content_hash=f"{number:064x}",
                duration_ms=200_000 + number, event_time=1_800_000_000_000, event_id=f"{number}",
                tagged_at=time.time_ns() // 1_000_000,
            )  # fmt: skip
            key, topic = f"{release}:{name}".encode(), self.settings.topics.named("tastewave.tracks.tagged")
            producer.send(topic, key=key, value=encode_event(answer))
        producer.flush(300)
        producer.close()

    @contextlib.asynccontextmanager
    async def feed(self, release: str) -> AsyncIterator[Feed]:
        """A feed of a release that has caught up."""
        from stream.serve.feed import Feed
        from stream.store.client import async_client

        client = async_client(self.settings.redis)
        await client.hset("tw:live", "release", release)  # pyright: ignore[reportGeneralTypeIssues]
        async with Feed(self.settings, redis=client) as feed:
            while not feed.state().caught_up:  # noqa: ASYNC110 - as whoever asks /ready
                await asyncio.sleep(0.01)
            yield feed
        await client.aclose()


def feed(_: Path) -> Figures:
    """CPU time to read a record into the index, and 200 readers of events at once: memory before and after."""
    from deploy.local import Kafka, Redis

    with Kafka() as kafka, Redis() as redis:
        platform = _Platform(kafka, redis)
        for release in ("a" * 12, "b" * 12):
            platform.tag(release, (f"{number:022x}" for number in range(TRACKS)))
        return asyncio.run(_feed(platform))


async def _feed(platform: _Platform) -> Figures:
    async def read(release: str) -> float:
        spent = time.process_time()
        async with platform.feed(release):
            return 1e6 * (time.process_time() - spent)

    await read("c" * 12)
    passed_over = await read("c" * 12) / (2 * TRACKS)
    taken = await read("a" * 12) / TRACKS - passed_over
    print(f"a record of the live release {taken:6.1f} us of CPU   of another release {passed_over:.1f} us")
    figures: Figures = {"us_of_cpu_per_record": taken, "us_of_cpu_per_record_of_another_release": passed_over}

    async def follow(feed: Feed) -> None:
        async with contextlib.aclosing(feed.events()) as events:
            for _ in range(EVENTS):
                await anext(events)

    async with platform.feed("a" * 12) as feed:
        resident, told = [], 0.0
        for turn in range(4):
            readers = [asyncio.create_task(follow(feed)) for _ in range(READERS)]
            while feed.state().subscribers < READERS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            names = [f"{turn}-{number}" for number in range(EVENTS)]
            spent = time.process_time()
            await asyncio.to_thread(platform.tag, "a" * 12, names)
            await asyncio.gather(*readers)
            told = 1e6 * (time.process_time() - spent) / (EVENTS * READERS)
            resident.append(resident_mb())
        left = feed.state().subscribers
    print(f"{READERS} readers of events       {told:6.1f} us of CPU an event and reader, the producer included   "
          f"after each of four rounds {', '.join(f'{one:.1f}' for one in resident)} MB, "
          f"{left} readers left")  # fmt: skip
    return figures | {"us_of_cpu_per_event_and_reader": told, "resident_mb_after_rounds": resident}


PARTS = {"index": index, "feed": feed}
