"""`tastewave serve` as a process of its own, and a platform around it that needs no worker."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import redis
from kafka import KafkaProducer

from deploy.local.process import Server
from models.contract import (
    LIVE_KEY,
    TRACKS_TAGGED,
    USERS_EMBEDDED,
    track_fields,
    track_key,
    user_fields,
    user_key,
)
from models.events import TrackTagged, UserEmbedded, encode_event
from stream.commands.topics import create_topics
from stream.settings import PREFIX, load_settings
from tests.platform.commands import TASTEWAVE
from tests.platform.letters import put_letter
from tests.platform.records import read_all


class Api(Server):
    """The process; its port is that of the API.

    Args:
        environment: TASTEWAVE_* of the servers, and settings of the API.
    """

    name: ClassVar[str] = "tastewave-serve"

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        self._environment = dict(environment)

    def _command(self) -> list[str]:
        given = self._environment | {"TASTEWAVE_SERVE_PORT": str(self.port), "TASTEWAVE_LOG_FORMAT": "json"}
        return ["env", *(f"{name}={value}" for name, value in given.items()), str(TASTEWAVE), "serve"]

    def _answers(self) -> bool:
        return self.get("/ready")[0] == 200

    def get(self, path: str, *, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and document of an answer, to a POST where there is a body; 0 where nobody answers."""
        status, text = self._get(path, body, headers)
        return status, json.loads(text) if status else None

    def text(self, path: str) -> str:
        """The text of an answer."""
        return self._get(path, None, {})[1]

    def _get(self, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


class Publisher:
    """What workers would write: into Redis, and then onto the compacted topics."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.settings = load_settings(
            **{name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if PREFIX in name}
        )
        create_topics(self.settings)
        self.redis = redis.Redis.from_url(environment["TASTEWAVE_REDIS_URL"])
        self._producer = KafkaProducer(bootstrap_servers=list(self.settings.kafka.brokers), acks="all")

    def activate(self, release: str) -> None:
        self.redis.hset(LIVE_KEY, mapping={"contract": 1, "release": release, "since": time.time_ns() // 1_000_000})

    def put(self, *answers: TrackTagged | UserEmbedded) -> None:
        for answer in answers:
            if isinstance(answer, TrackTagged):
                key, fields, id_ = track_key(answer.release, answer.track_id), track_fields(answer), answer.track_id
                topic = TRACKS_TAGGED
            else:
                key, fields, id_ = user_key(answer.release, answer.user_id), user_fields(answer), answer.user_id
                topic = USERS_EMBEDDED
            self.redis.hset(key, mapping=fields)  # type: ignore[arg-type]
            self._send(topic, f"{answer.release}:{id_}", encode_event(answer))
        self._producer.flush(30)

    def put_many(self, tracks: Iterable[TrackTagged]) -> None:
        """Tracks onto the topic alone, where there are too many for Redis."""
        for track in tracks:
            self._send(TRACKS_TAGGED, f"{track.release}:{track.track_id}", encode_event(track))
        self._producer.flush(60)

    def put_letter(self, offset: int, **letter: Any) -> None:
        put_letter(self._producer, self.settings, offset, **letter)

    def read(self, topic: str) -> list[Any]:
        """All records of a topic, by the time they were sent."""
        return read_all(self.settings, topic)

    def forget_user(self, release: str, user_id: str) -> None:
        """Only in Redis, as it is before the empty value has come through Kafka."""
        self.redis.delete(user_key(release, user_id))

    def publish(self, topic: str, key: str, value: bytes | None) -> None:
        """What others publish, such as uploads."""
        self._send(topic, key, value)
        self._producer.flush(30)

    def _send(self, topic: str, key: str, value: bytes | None) -> None:
        self._producer.send(self.settings.topics.named(topic), key=key.encode(), value=value)

    def close(self) -> None:
        self._producer.close()
        self.redis.close()


@contextmanager
def publisher(environment: Mapping[str, str]) -> Iterator[Publisher]:
    """A publisher on topics of its own, three partitions each."""
    made = Publisher({"TASTEWAVE_TOPIC_PARTITIONS": "3", **environment})
    try:
        yield made
    finally:
        made.close()
