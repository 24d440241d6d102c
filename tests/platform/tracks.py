"""A music platform that uploads tracks, runs workers, and reads what they answered."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import msgspec
import redis
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from models.contract import DEAD_LETTER, TRACKS_FEATURES, TRACKS_TAGGED, TRACKS_UPLOADED, track_answer, track_key
from models.events import TrackFeatures, TrackTagged, TrackUploaded, encode_event
from models.release import load_release
from stream.commands.topics import create_topics
from stream.settings import PREFIX, Settings, load_settings
from tests.platform.clock import now_ms, until
from tests.platform.commands import TASTEWAVE, run_command
from tests.platform.records import read_all

DELIVERY_TIMEOUT_S = 150.0  # longer than the producer itself tries


@dataclass
class Platform:
    """A music platform around the real servers.

        platform = Platform(worker_environment(environment, folder), folder)
        platform.start_worker()
        answer = platform.wait_for(platform.upload(write_music(folder / "track.wav").as_uri()))

    The fixtures `platform` and `undisturbed` of tests/integration/conftest.py make one and close it.

    Attributes:
        environment: the environment variables of its commands and workers; see worker_environment.
        folder: holds the audio and the workers' logs.
        workers: its workers in the order they were started, which is their `number` in the methods.
    """

    role: ClassVar[str] = "tracks"
    events: ClassVar[str] = TRACKS_UPLOADED
    """Topic of the events that its workers answer."""

    environment: dict[str, str]
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings: Settings = load_settings(
            **{
                name.removeprefix(PREFIX).lower(): value
                for name, value in self.environment.items()
                if name.startswith(PREFIX)
            }
        )
        self.release = load_release(self.settings.worker.release).release_id
        create_topics(self.settings)
        client = redis.RedisCluster if self.settings.redis.cluster else redis.Redis
        self.redis = client.from_url(self.environment["TASTEWAVE_REDIS_URL"])
        self.producer = KafkaProducer(bootstrap_servers=list(self.settings.kafka.brokers), acks="all")

    def run(self, *arguments: str) -> str:
        """Run `tastewave` with these arguments, and return what it printed."""
        done = self.try_to_run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_to_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `tastewave` with these arguments, whether it succeeds or not."""
        return run_command("tastewave", *arguments, environment=self.environment)

    def start_worker(self, *, program: Sequence[str] = (str(TASTEWAVE),), **settings: str) -> subprocess.Popen[bytes]:
        """Start a worker without waiting for it; settings are those of the environment, in lower case."""
        environment = self.environment | {f"TASTEWAVE_{name.upper()}": value for name, value in settings.items()}
        log = (self.folder / f"worker-{len(self.workers)}.log").open("wb")
        worker = subprocess.Popen([*program, "worker", self.role], env=environment, stderr=log, stdout=log)
        log.close()
        self.workers.append(worker)
        return worker

    def worker_log(self, number: int = 0) -> str:
        return (self.folder / f"worker-{number}.log").read_text()

    def health(self, path: str, number: int = 0) -> tuple[int, str]:
        """Status and text of a page of a worker's health server; 0 where it does not answer."""
        if address := self.health_address(number):
            try:
                with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError:
                pass
        return 0, ""

    def health_address(self, number: int = 0) -> str:
        """Host and port of a worker's health server; empty before it has one."""
        lines = (line for line in self.worker_log(number).splitlines() if "worker.starting" in line)
        return next((json.loads(line)["health"] for line in lines), "")

    def until_ready(self, number: int = 0) -> None:
        until(lambda: self.health("/ready", number)[0] == 200)

    def upload(self, uri: str, *, track_id: str | None = None, at: int | None = None, **fields: Any) -> TrackUploaded:
        """Upload a track, under an id of its own and with the time of now unless given, and return its event."""
        event = TrackUploaded(
            event_id=uuid4().hex, track_id=track_id or uuid4().hex, uri=uri, uploaded_at=at or now_ms(), **fields
        )
        self.send(encode_event(event), key=event.track_id.encode())
        return event

    def send(self, value: bytes | None, *, key: bytes = b"key") -> None:
        self.producer.send(self.settings.topics.named(self.events), key=key, value=value).get(DELIVERY_TIMEOUT_S)

    def held(self, track_id: str) -> TrackTagged | None:
        """The answer in Redis, if there is one."""
        fields = self.redis.hgetall(track_key(self.release, track_id, prefix=self.settings.redis.key_prefix))
        return track_answer(track_id, self.release, fields) if fields else None

    def wait_for(self, event: TrackUploaded, *, timeout_s: float = 60.0) -> TrackTagged:
        """Wait for the answer to this very upload, and return it."""

        def answered() -> TrackTagged | None:
            held = self.held(event.track_id)
            return held if held and held.event_time == event.uploaded_at else None

        return until(answered, timeout_s=timeout_s)

    def read(self, topic: str) -> list[Any]:
        """All records of a topic, by the time they were sent."""
        return read_all(self.settings, topic)

    def tracks_held(self) -> set[str]:
        """The tracks that have an answer in Redis."""
        return {key.decode().partition("{")[2][:-1] for key in self.redis.scan_iter("tw:*:track:*", count=1000)}

    def output(self) -> dict[str, TrackTagged]:
        """The last answer of each track on the output topic. Asserts that Redis holds the same."""
        values = {record.key: record.value for record in self.read(TRACKS_TAGGED)}
        last = {key: msgspec.json.decode(value, type=TrackTagged) for key, value in values.items() if value is not None}
        answers = {answer.track_id: answer for answer in last.values()}
        assert {f"{self.release}:{track_id}".encode() for track_id in answers} == set(last)
        for track_id, answer in answers.items():
            assert answer == self.held(track_id)
        return answers

    def dead_letters(self) -> list[dict[str, Any]]:
        """Our headers of all dead letters (without "tastewave."), with the key and value of the upload."""
        return [
            {name.removeprefix("tastewave."): value.decode() for name, value in record.headers}
            | {"value": record.value, "key": record.key}
            for record in self.read(DEAD_LETTER)
        ]

    def lag(self, number: int = 0) -> int:
        """The lag that a worker reports; -1 where it does not answer."""
        status, report = self.health("/ready", number)
        return sum(place["lag"] for place in json.loads(report)["partitions"].values()) if status else -1

    def settled(self, *, timeout_s: float = 120.0) -> None:
        """Return when the consumer group has committed every event."""
        topics = self.settings.topics
        group, topic = topics.consumer_group(role=self.role, release=self.release), topics.named(self.events)
        consumer = KafkaConsumer(
            bootstrap_servers=list(self.settings.kafka.brokers), group_id=group, enable_auto_commit=False
        )

        def all_are_committed() -> bool:
            places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            ends = consumer.end_offsets(places)
            return all((consumer.committed(place) or 0) == ends[place] for place in places)

        with closing(consumer):
            until(all_are_committed, timeout_s=timeout_s)

    def replay_from(self, other: "Platform") -> None:
        """Upload everything that another platform uploaded, byte for byte."""
        for record in other.read(TRACKS_UPLOADED):
            self.producer.send(self.settings.topics.named(TRACKS_UPLOADED), key=record.key, value=record.value)
        self.producer.flush(30)

    def assert_ended_like(self, undisturbed: "Platform", *, timeout_s: float = 120.0) -> None:
        """Wait for the end, play the same events undisturbed, and compare.

        The answered events, every cached answer (but for tagged_at), the dead letters and the content whose features
        stand last must be the same, and
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

        def features(platform: Platform) -> set[tuple[str, str]]:
            """The content whose features stand last on their topic, for each track."""
            records = platform.read(TRACKS_FEATURES)
            last = {record.key: msgspec.msgpack.decode(record.value, type=TrackFeatures) for record in records}
            return {(one.track_id, one.content_hash) for one in last.values()}

        # Only what differs, so that a failure shows it: pytest cuts long comparisons off.
        mine, theirs = answers(self), answers(undisturbed)
        tracks = mine.keys() | theirs.keys()
        assert [(mine.get(track), theirs.get(track)) for track in tracks if mine.get(track) != theirs.get(track)] == []
        for what in (letters, features):
            mine, theirs = what(self), what(undisturbed)
            assert (mine - theirs, theirs - mine) == (set(), set())

    def close(self) -> None:
        """Kill the workers that still run, and close the clients."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait(30)
        self.producer.close()
        self.redis.close()


def worker_environment(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of a small worker on these servers that may read the folder.

    Args:
        environment: TASTEWAVE_* of the servers, as the fixture `environment` gives them.
        folder: the only folder whose files it may fetch.
    """
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        **environment,
        "TASTEWAVE_FILE_ROOTS": str(folder),
        "TASTEWAVE_ALLOWED_HOSTS": "127.0.0.1",
        "TASTEWAVE_HEALTH_PORT": "0",
        "TASTEWAVE_LOG_FORMAT": "json",
        "TASTEWAVE_POOL_SIZE": "1",
        "TASTEWAVE_TOPIC_PARTITIONS": "3",
    }
