"""The whole path of uploaded tracks on real servers: how fast, how late, how much memory, and where the time goes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import click
import msgspec
import psutil

from models.contract import TRACKS_TAGGED, TRACKS_UPLOADED
from models.events import TrackTagged, TrackUploaded, encode_event

TASTEWAVE = Path(sys.executable).with_name("tastewave")
MIB = 2**20
Figures = dict[str, Any]


class Answer(NamedTuple):
    """Times (ms) of an upload and of its answer on the output topic, which follows the write to Redis."""

    at: int
    event_time: int


class Rig:
    """Kafka, Redis and workers of its own, and the times of all answers; a context manager."""

    def __init__(self, folder: Path) -> None:
        from deploy.local import Kafka, Redis

        self.folder = folder
        self.kafka, self.redis = Kafka(), Redis()
        self._come: list[Answer] = []

    def __enter__(self) -> Self:
        from kafka import KafkaConsumer, KafkaProducer

        self.kafka.start()
        self.redis.start()
        self._environment = os.environ | {
            "TASTEWAVE_KAFKA_BROKERS": self.kafka.brokers,
            "TASTEWAVE_REDIS_URL": self.redis.url,
            "TASTEWAVE_FILE_ROOTS": str(self.folder),
            "TASTEWAVE_HEALTH_PORT": "0",
            "TASTEWAVE_LOG_FORMAT": "json",
        }
        subprocess.run([TASTEWAVE, "topics", "create"], env=self._environment, check=True, capture_output=True)
        self._producer = KafkaProducer(bootstrap_servers=self.kafka.brokers, acks="all", linger_ms=5)
        self._consumer = KafkaConsumer(
            TRACKS_TAGGED, bootstrap_servers=self.kafka.brokers, auto_offset_reset="earliest", group_id=None
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()
        self._consumer.close()
        self.kafka.close()
        self.redis.close()

    @contextmanager
    def worker(self, **settings: object) -> Iterator[Worker]:
        environment = self._environment | {f"TASTEWAVE_{name.upper()}": str(text) for name, text in settings.items()}
        log = self.folder / f"worker-{uuid4().hex}.log"
        with log.open("wb") as file:
            process = subprocess.Popen([TASTEWAVE, "worker", "tracks"], env=environment, stderr=file)
        try:
            worker = Worker(psutil.Process(process.pid), log)
            worker.logged("worker.ready")
            yield worker
        finally:
            process.terminate()
            process.wait(60)

    def upload(self, uri: str, track_ids: Sequence[str]) -> list[TrackUploaded]:
        """Queue an upload for each id."""
        events = [
            TrackUploaded(event_id=uuid4().hex, track_id=track_id, uri=uri, uploaded_at=time.time_ns() // 1_000_000)
            for track_id in track_ids
        ]
        self.send(events)
        return events

    def send(self, events: Sequence[TrackUploaded]) -> None:
        """Queue uploads."""
        for event in events:
            self._producer.send(TRACKS_UPLOADED, key=event.track_id.encode(), value=encode_event(event))
        self._producer.flush()

    def answers(self, count: int) -> list[Answer]:
        """The next answers, in the order in which they came."""
        decoder = msgspec.json.Decoder(TrackTagged)
        silent_since = time.monotonic()
        while len(self._come) < count:
            for records in self._consumer.poll(timeout_ms=500).values():
                self._come += [Answer(record.timestamp, decoder.decode(record.value).event_time) for record in records]
                silent_since = time.monotonic()
            if time.monotonic() - silent_since > 60:
                raise click.ClickException(f"no answer for 60 s, {len(self._come)} of {count} came")
        answers, self._come = self._come[:count], self._come[count:]
        return sorted(answers)


class Worker:
    """A running worker, seen from outside."""

    def __init__(self, process: psutil.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pool(self) -> list[psutil.Process]:
        """Its pool processes."""
        return [child for child in self.process.children() if "stream.audio.pool_process" in child.cmdline()]

    def memory_mib(self) -> tuple[float, float]:
        """Resident memory of the main process, and of its largest pool process."""
        return self.process.memory_info().rss / MIB, max(child.memory_info().rss for child in self.pool) / MIB

    def logged(self, event: str) -> dict[str, Any]:
        """The first line about an event; waits for it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for line in self._log.read_text().splitlines():
                if line.startswith("{") and json.loads(line)["event"] == event:
                    return json.loads(line)
            time.sleep(0.02)
        raise click.ClickException(f"the worker did not log {event}:\n{self._log.read_text()}")

    def stages(self) -> dict[str, tuple[float, float]]:
        """Seconds spent and times passed, by stage, up to now."""
        with urllib.request.urlopen(f"http://{self.logged('worker.starting')['health']}/metrics") as scraped:
            text = scraped.read().decode()

        def values(what: str) -> dict[str, float]:
            found = re.findall(rf'^tastewave_stage_seconds_{what}{{stage="(\w+)"}} (\S+)', text, re.MULTILINE)
            return {stage: float(value) for stage, value in found}

        sums, counts = values("sum"), values("count")
        return {stage: (sums[stage], counts[stage]) for stage in sums}


def write_mp3(path: Path, *, seconds: float = 30.0) -> Path:
    """A 44.1 kHz stereo mp3 of chords over a beat."""
    import numpy as np
    import soundfile

    rng, rate = np.random.default_rng(0), 44_100
    t = np.arange(int(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * t) for f in (110, 164.81, 220, 277.18, 329.63))
    beat = np.exp(-30 * (t % 0.5)) * rng.standard_normal(t.size)
    left, right = 0.1 * tones + 0.3 * beat, 0.1 * np.roll(tones, 100) + 0.3 * beat
    soundfile.write(path, np.stack([left, right], axis=1), rate, format="MP3")
    return path


def rate_of(answers: Sequence[Answer]) -> float:
    """Answers a second, from the first to the last."""
    return (len(answers) - 1) / max(0.001, (answers[-1].at - answers[0].at) / 1000)


def new_ids(count: int) -> list[str]:
    """Of tracks that were never uploaded."""
    return [uuid4().hex for _ in range(count)]


def inference_rate(mp3: Path, *, processes: int, tracks: int) -> float:
    """Tracks a second that the same pool hears with nothing around it."""
    from models.release import DEFAULT
    from stream.audio.pool import TaggerPool

    async def hear() -> float:
        pool.launch()
        await pool.ready()
        with mp3.open("rb") as file:
            started = time.perf_counter()
            await asyncio.gather(*(pool.tag(file) for _ in range(tracks)))
            return tracks / (time.perf_counter() - started)

    pool = TaggerPool(str(DEFAULT), processes=processes, timeout_s=60, memory_mb=1024, max_duration_s=3600)
    try:
        return asyncio.run(hear())
    finally:
        pool.stop()


def start(folder: Path) -> Figures:
    """Start-up and memory of a worker."""
    mp3 = write_mp3(folder / "track.mp3")
    with Rig(folder) as rig:
        with rig.worker():  # the broker makes its group coordinator for the first one
            pass
        started = time.time()
        with rig.worker() as worker:
            at = {
                name: datetime.fromisoformat(worker.logged(name)["timestamp"]).timestamp() - started
                for name in ("worker.loaded", "worker.ready")
            }
            rig.upload(mp3.as_uri(), new_ids(20))
            rig.answers(20)
            main, pool = worker.memory_mib()
            processes = len(worker.pool)
    print(f"worker loaded, process start    {at['worker.loaded']:8.2f} s    (mark: under 2)")
    print(f"  then in its consumer group    {at['worker.ready'] - at['worker.loaded']:8.2f} s")
    print(f"main process                    {main:8.0f} MiB  (mark: under 150)")
    print(f"each of {processes} pool processes        {pool:8.0f} MiB  (mark: under 250)")
    return {"loaded_s": at["worker.loaded"], "ready_s": at["worker.ready"], "main_mib": main, "pool_mib": pool}


def path(folder: Path) -> Figures:
    """Tracks/s of the whole path by pool size against the pool alone, latency at 70 % of it, where the time goes."""
    figures: Figures = {}
    mp3 = write_mp3(folder / "track.mp3")
    with Rig(folder) as rig:
        for processes in (1, 2):
            tracks = 60 * processes
            alone = [inference_rate(mp3, processes=processes, tracks=tracks // 2)]
            with rig.worker(pool_size=processes) as worker:
                rig.upload(mp3.as_uri(), new_ids(tracks))
                whole = rate_of(rig.answers(tracks)[processes:])
                stages = {stage: 1000 * spent / count for stage, (spent, count) in worker.stages().items()}
                chance, late = random.Random(0), []
                due = time.monotonic()
                for track_id in new_ids(tracks):
                    due += chance.expovariate(0.7 * whole)
                    time.sleep(max(0.0, due - time.monotonic()))
                    rig.upload(mp3.as_uri(), [track_id])
                late = [answer.at - answer.event_time for answer in rig.answers(tracks)]
            alone.append(inference_rate(mp3, processes=processes, tracks=tracks // 2))
            overlap = whole / max(alone)
            p50, p99 = statistics.median(late), statistics.quantiles(late, n=100, method="inclusive")[98]
            print(f"{processes} pool processes, 30-s mp3       {whole:8.2f} tracks/s, the pool alone "
                  f"{max(alone):.2f}: overlap {overlap:.2f} (mark: 0.9)")  # fmt: skip
            print(f"  upload to answer, 70 % load   {p50:8.0f} ms p50, {p99:.0f} ms p99 (Poisson arrivals)")
            print("  ms by stage                     " + ", ".join(f"{name} {ms:.1f}" for name, ms in stages.items()))
            figures[str(processes)] = {
                "tracks_per_s": whole, "pool_alone_per_s": alone, "overlap": overlap, "p50_ms": p50, "p99_ms": p99,
                "stages_ms": stages,
            }  # fmt: skip
    return figures


def redelivery(folder: Path) -> Figures:
    """Events/s of uploads whose answers stand in Redis already."""
    tracks, repeats = 200, 50
    mp3 = write_mp3(folder / "track.mp3", seconds=4.0)
    with Rig(folder) as rig, rig.worker() as worker:
        events = rig.upload(mp3.as_uri(), new_ids(tracks))
        rig.answers(tracks)
        began = worker.process.cpu_times()
        rig.send(events * repeats)
        rate = rate_of(rig.answers(tracks * repeats))
        ended = worker.process.cpu_times()
        cpu_us = 1e6 * (ended.user + ended.system - began.user - began.system) / (tracks * repeats)
    print(f"redelivery, answered from Redis {rate:8.0f} events/s (mark: 1000), {cpu_us:.0f} us of CPU each")
    return {"events_per_s": rate, "cpu_us": cpu_us}


def guards(folder: Path) -> Figures:
    """What the sandbox and the process boundary add to hearing a track, and the gates to fetching it, in turn."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from models.release import load_release
    from models.tagger import Tagger
    from stream.audio.fetch import Fetcher
    from stream.audio.pool import TaggerPool
    from stream.settings import load_settings

    mp3 = write_mp3(folder / "track.mp3")
    tagger = Tagger(load_release(), max_duration_s=3600)
    pool = TaggerPool(str(load_release().folder), processes=1, timeout_s=60, memory_mb=1024, max_duration_s=3600)

    async def compare() -> tuple[list[float], list[float], list[float], list[float]]:
        here, guarded, plain, gated = [], [], [], []
        pool.launch()
        await pool.ready()
        async with Fetcher(load_settings(file_roots=str(folder)).fetch) as fetcher:
            for run in range(12):
                at = [time.perf_counter()]
                tagger.tag(mp3)
                at.append(time.perf_counter())
                with mp3.open("rb") as file:
                    await pool.tag(file)
                at.append(time.perf_counter())
                mp3.read_bytes()
                at.append(time.perf_counter())
                (await fetcher.fetch(mp3.as_uri())).close()
                at.append(time.perf_counter())
                if run >= 2:  # warm
                    for took, began, ended in zip((here, guarded, plain, gated), at, at[1:], strict=False):
                        took.append(1000 * (ended - began))
        return here, guarded, plain, gated

    try:
        here, guarded, plain, gated = map(statistics.median, asyncio.run(compare()))
    finally:
        pool.stop()
    ratio = guarded / here
    print(f"hearing in the sandbox          {guarded:8.1f} ms   in this process {here:.1f} ms   ratio {ratio:.3f}")
    print(f"fetching a file through gates   {gated:8.2f} ms   reading it {plain:.2f} ms   (hashed as well)")
    return {"guarded_ms": guarded, "unguarded_ms": here, "fetch_ms": gated, "read_ms": plain}


def queue(folder: Path) -> Figures:
    """Uploads in the queue, one in fifty of a new track, the others answered before: rate and memory over 100,000."""
    import redis

    count, new_every = 100_000, 50
    mp3 = write_mp3(folder / "track.mp3", seconds=3.2)
    with Rig(folder) as rig, redis.Redis.from_url(rig.redis.url) as client:
        with rig.worker():
            (first,) = rig.upload(mp3.as_uri(), new_ids(1))
            rig.answers(1)
        (key,) = client.scan_iter("tw:*:track:*")
        answer = client.hgetall(key)
        # More than is measured, so that every partition has some left at the end.
        events = [msgspec.structs.replace(first, track_id=track_id) for track_id in new_ids(count + count // 10)]
        with client.pipeline(transaction=False) as writes:
            for number, event in enumerate(events):
                if number % new_every:
                    writes.hset(key.replace(first.track_id.encode(), event.track_id.encode()), mapping=answer)
            writes.execute()
        rig.send(events)
        with rig.worker() as worker:
            answers, memory = [], []
            for _ in range(10):
                answers.append(rig.answers(count // 10))
                memory.append(worker.memory_mib())
    rates = [rate_of(part) for part in answers]
    print(f"100,000 queued, by tenths       {', '.join(f'{rate:.0f}' for rate in rates)} events/s: "
          f"the last is {rates[-1] / rates[1]:.2f} of the second")  # fmt: skip
    print(f"  main and pool process         {', '.join(f'{main:.0f}' for main, _ in memory)} MiB and "
          f"{', '.join(f'{pool:.0f}' for _, pool in memory)} MiB")  # fmt: skip
    return {"events_per_s": rates, "memory_mib": memory}


PARTS = {"start": start, "path": path, "guards": guards, "redelivery": redelivery, "queue": queue}
