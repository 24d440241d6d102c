"""A platform without workers: a test puts answers on the topics itself, and a Feed reads them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from kafka import KafkaProducer

from models.contract import FORGOTTEN, TRACKS_TAGGED, USERS_EMBEDDED, live_key
from models.events import Forgotten, TrackTagged, UserEmbedded, encode_event
from stream.commands.topics import create_topics
from stream.serve.feed import Feed
from stream.settings import Settings, load_settings
from stream.store.client import async_client
from tests.platform.clock import now_ms

RELEASE, LATER_RELEASE = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def place(*angles: float) -> tuple[float, ...]:
    """A place of unit norm in a taste space of four dimensions: the last one holds what the others leave."""
    first = np.zeros(4)
    first[: len(angles)] = angles
    first[3] = np.sqrt(1 - (first[:3] ** 2).sum())
    return tuple(first.tolist())


class Topics:
    """The topics that a feed reads, and tw:live."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        create_topics(settings)
        self._producer = KafkaProducer(bootstrap_servers=list(settings.kafka.brokers), acks="all")
        self.redis = async_client(settings.redis)

    async def close(self) -> None:
        self._producer.close()
        await self.redis.aclose()

    async def make_live(self, release: str) -> None:
        await self.redis.hset(live_key(prefix=self.settings.redis.key_prefix), "release", release)  # pyright: ignore

    def send(self, topic: str, key: str, value: bytes | None, *, partition: int | None = None) -> None:
        self._producer.send(self.settings.topics.named(topic), key=key.encode(), value=value, partition=partition)

    def flush(self) -> None:
        self._producer.flush(60)

    def tag(self, track_id: str, embedding: Sequence[float] | None, *, release: str = RELEASE, **fields: Any) -> None:
        values: dict[str, Any] = {"status": "tagged", "genre": "jazz", "event_time": now_ms()} | fields
        answer = TrackTagged(
            track_id=track_id,
            release=release,
            event_id="e",
            tagged_at=now_ms(),
            embedding=None if embedding is None else tuple(embedding),
            **values,
        )
        self.send(TRACKS_TAGGED, f"{release}:{track_id}", encode_event(answer))

    def embed(self, user_id: str, embedding: Sequence[float], *, release: str = RELEASE, **fields: Any) -> None:
        values: dict[str, Any] = {"source": "history", "event_time": now_ms(), "refreshed_at": now_ms()} | fields
        user = UserEmbedded(
            user_id=user_id, release=release, embedding=tuple(embedding), listens=1, revision=1, **values
        )
        self.send(USERS_EMBEDDED, f"{release}:{user_id}", encode_event(user))

    def take_back(self, topic: str, name: str, *, release: str = RELEASE) -> None:
        self.send(topic, f"{release}:{name}", None)

    def forget(self, kind: Any, name: str, *, at: int | None = None) -> None:
        self.send(FORGOTTEN, f"{kind}:{name}", encode_event(Forgotten(kind=kind, id=name, forgotten_at=at or now_ms())))

    @contextlib.asynccontextmanager
    async def feed(self) -> AsyncIterator[Feed]:
        """A feed that has caught up."""
        self.flush()
        async with Feed(self.settings, redis=self.redis) as feed:
            await eventually(lambda: feed.state().caught_up)
            yield feed


def settings_of(environment: dict[str, str]) -> Settings:
    """The settings in an environment of a test, with topics of three partitions."""
    given = {name.removeprefix("TASTEWAVE_").lower(): value for name, value in environment.items()}
    return load_settings(**given, topic_partitions="3")


async def eventually(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    """Ask again and again until the answer is true, and return it, while the event loop goes on."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)
    return result
