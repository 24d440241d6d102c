"""A music platform around the real servers: it uploads, runs workers, and reads what they answered."""

import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import redis
import soundfile
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from models.contract import (
    DEAD_LETTER,
    TRACKS_TAGGED,
    TRACKS_UPLOADED,
    track_answer,
    track_key,
)
from models.events import TrackTagged, TrackUploaded, encode_event
from models.release import load_release
from stream.settings import Settings, load_settings

TASTEWAVE = Path(sys.executable).with_name("tastewave")
DELIVERY_TIMEOUT_S = 150.0  # longer than the producer itself tries


def music(*, seconds: float = 6.0, seed: int = 0, sample_rate: int = 22_050) -> np.ndarray:
    """A few chords over a beat; not silence, not noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    tones = sum(np.sin(2 * np.pi * f * t) for f in 110.0 * 2 ** (rng.integers(0, 36, 4) / 12))
    beat = np.exp(-30 * (t % 0.5)) * rng.standard_normal(t.size)
    return (0.12 * tones + 0.3 * beat).astype(np.float32)


def write_music(path: Path, **options: Any) -> Path:
    """A short piece in the format of the suffix, by libsndfile or, where it cannot, by FFmpeg."""
    samples = music(**options)
    if path.suffix in (".m4a", ".webm", ".aac"):
        import av

        codec = "libopus" if path.suffix == ".webm" else "aac"
        with av.open(str(path), "w", format={".m4a": "mp4", ".webm": "webm", ".aac": "adts"}[path.suffix]) as container:
            stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else 22_050, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="flt", layout="mono")
            frame.sample_rate = 22_050
            resampler = av.AudioResampler(stream.format, "mono", stream.rate, frame_size=stream.frame_size or 960)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    elif path.suffix == ".opus":
        soundfile.write(path, music(**options | {"sample_rate": 48_000}), 48_000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, samples, 22_050)
    return path


def write_catalogue(folder: Path) -> list[str]:
    """URIs of a few short tracks, of one that is not audio, and of one that is not there."""
    files = [write_music(folder / f"track-{number}.wav", seed=number, seconds=3.2) for number in range(4)]
    (folder / "text.mp3").write_text("no music at all\n" * 100)
    return [file.as_uri() for file in (*files, folder / "text.mp3", folder / "missing.wav")]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)
    return result


@dataclass
class Platform:
    """A music platform around the real servers."""

    environment: dict[str, str]
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings: Settings = load_settings(
            kafka_brokers=self.environment["TASTEWAVE_KAFKA_BROKERS"],
            redis_url=self.environment["TASTEWAVE_REDIS_URL"],
            redis_cluster=self.environment.get("TASTEWAVE_REDIS_CLUSTER"),
            topic_prefix=self.environment["TASTEWAVE_TOPIC_PREFIX"],
        )
        self.release = load_release().release_id
        self.run("topics", "create")
        client = redis.RedisCluster if self.settings.redis.cluster else redis.Redis
        self.redis = client.from_url(self.environment["TASTEWAVE_REDIS_URL"])
        self.producer = KafkaProducer(bootstrap_servers=list(self.settings.kafka.brokers), acks="all")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [TASTEWAVE, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_worker(self, *, program: Sequence[str] = (str(TASTEWAVE),), **settings: str) -> subprocess.Popen[bytes]:
        environment = self.environment | {f"TASTEWAVE_{name.upper()}": value for name, value in settings.items()}
        log = (self.folder / f"worker-{len(self.workers)}.log").open("wb")
        worker = subprocess.Popen([*program, "worker", "tracks"], env=environment, stderr=log, stdout=log)
        log.close()
        self.workers.append(worker)
        return worker

    def worker_log(self, number: int = 0) -> str:
        return (self.folder / f"worker-{number}.log").read_text()

    def health(self, path: str, number: int = 0) -> tuple[int, str]:
        for line in self.worker_log(number).splitlines():
            if "worker.starting" in line:
                try:
                    with urllib.request.urlopen(f"http://{json.loads(line)['health']}{path}", timeout=5) as answer:
                        return answer.status, answer.read().decode()
                except urllib.error.HTTPError as error:
                    return error.code, error.read().decode()
                except OSError:
                    break
        return 0, ""

    def until_ready(self, number: int = 0) -> None:
        until(lambda: self.health("/ready", number)[0] == 200)

    def upload(self, uri: str, *, track_id: str | None = None, at: int | None = None, **fields: Any) -> TrackUploaded:
        event = TrackUploaded(
            event_id=uuid4().hex, track_id=track_id or uuid4().hex, uri=uri, uploaded_at=at or now_ms(), **fields
        )
        self.send(encode_event(event), key=event.track_id.encode())
        return event

    def send(self, value: bytes | None, *, key: bytes = b"key") -> None:
        self.producer.send(self.settings.topics.named(TRACKS_UPLOADED), key=key, value=value).get(DELIVERY_TIMEOUT_S)

    def held(self, track_id: str) -> TrackTagged | None:
        fields = self.redis.hgetall(track_key(self.release, track_id))
        return track_answer(track_id, self.release, fields) if fields else None

    def wait_for(self, event: TrackUploaded, *, timeout_s: float = 60.0) -> TrackTagged:
        def answered() -> TrackTagged | None:
            held = self.held(event.track_id)
            return held if held and held.event_time == event.uploaded_at else None

        return until(answered, timeout_s=timeout_s)

    def read(self, topic: str) -> list[Any]:
        consumer = KafkaConsumer(bootstrap_servers=list(self.settings.kafka.brokers), enable_auto_commit=False)
        name = self.settings.topics.named(topic)
        partitions = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        records = []
        while any(consumer.position(place) < end for place, end in ends.items()):
            for batch in consumer.poll(timeout_ms=500).values():
                records += batch
        consumer.close()
        return sorted(records, key=lambda record: (record.timestamp, record.partition, record.offset))

    def tracks_held(self) -> set[str]:
        """The tracks that have an answer in Redis."""
        return {key.decode().partition("{")[2][:-1] for key in self.redis.scan_iter("tw:*:track:*", count=1000)}

    def output(self) -> dict[str, TrackTagged]:
        """The last value per track on the output topic, and that it equals Redis."""
        last = {record.key: msgspec.json.decode(record.value, type=TrackTagged) for record in self.read(TRACKS_TAGGED)}
        answers = {answer.track_id: answer for answer in last.values()}
        assert {f"{self.release}:{track_id}".encode() for track_id in answers} == set(last)
        for track_id, answer in answers.items():
            assert answer == self.held(track_id)
        return answers

    def dead_letters(self) -> list[dict[str, Any]]:
        return [
            {name: value.decode() for name, value in record.headers} | {"value": record.value, "key": record.key}
            for record in self.read(DEAD_LETTER)
        ]

    def lag(self, number: int = 0) -> int:
        status, report = self.health("/ready", number)
        return sum(place["lag"] for place in json.loads(report)["partitions"].values()) if status else -1

    def uncommitted(self) -> int:
        """Uploads that the consumer group has not committed."""
        group = self.settings.topics.named(f"tastewave.tracks.{self.release}")
        consumer = KafkaConsumer(
            bootstrap_servers=list(self.settings.kafka.brokers), group_id=group, enable_auto_commit=False
        )
        name = self.settings.topics.named(TRACKS_UPLOADED)
        partitions = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name)]
        ends = consumer.end_offsets(partitions)
        missing = sum(end - (consumer.committed(place) or 0) for place, end in ends.items())
        consumer.close()
        return missing

    def settled(self, *, timeout_s: float = 120.0) -> None:
        """Return when every upload is committed."""
        until(lambda: self.uncommitted() == 0, timeout_s=timeout_s)

    def replay_from(self, other: "Platform") -> None:
        """Upload everything that another platform uploaded, byte for byte."""
        for record in other.read(TRACKS_UPLOADED):
            self.producer.send(self.settings.topics.named(TRACKS_UPLOADED), key=record.key, value=record.value)
        self.producer.flush(30)

    def assert_ended_like(self, undisturbed: "Platform", *, timeout_s: float = 120.0) -> None:
        """Wait for the end, play the same events undisturbed, and compare.

        The answered events, every cached answer (but for tagged_at) and the dead letters must be the same, and
        the last value of each key on the output topic must be what Redis holds.
        """
        self.settled(timeout_s=timeout_s)
        undisturbed.replay_from(self)
        undisturbed.start_worker()
        undisturbed.settled(timeout_s=timeout_s)

        def answers(platform: Platform) -> dict[str, TrackTagged]:
            output = platform.output()
            assert platform.tracks_held() == output.keys()
            return {track_id: msgspec.structs.replace(answer, tagged_at=0) for track_id, answer in output.items()}

        def letters(platform: Platform) -> set[tuple[Any, ...]]:
            return {(letter["key"], letter["value"], letter["reason"]) for letter in platform.dead_letters()}

        assert answers(self) == answers(undisturbed)
        assert letters(self) == letters(undisturbed)

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait(30)
        self.producer.close()
        self.redis.close()


@contextmanager
def uploading(platform: Platform, uris: Sequence[str], *, every_s: float) -> Iterator[None]:
    """Upload in turn, a quarter of it for tracks that were uploaded before, until the block ends.

    While Kafka is away an upload waits.
    """
    stop, chance = threading.Event(), random.Random(0)

    def produce() -> None:
        number = 0
        while not stop.wait(every_s):
            track = number if chance.random() < 0.75 else chance.randrange(number + 1)
            platform.upload(uris[number % len(uris)], track_id=f"t{track}", title=str(number))
            number += 1

    with ThreadPoolExecutor(1) as executor:
        producer = executor.submit(produce)
        try:
            yield
        finally:
            stop.set()
        producer.result()


def worker_environment(environment: dict[str, str], folder: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TASTEWAVE_")},
        **environment,
        "TASTEWAVE_FILE_ROOTS": str(folder),
        "TASTEWAVE_ALLOWED_HOSTS": "127.0.0.1",
        "TASTEWAVE_HEALTH_PORT": "0",
        "TASTEWAVE_LOG_FORMAT": "json",
        "TASTEWAVE_POOL_SIZE": "1",
        "TASTEWAVE_TOPIC_PARTITIONS": "3",
    }
