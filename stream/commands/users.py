"""`tastewave users rebuild`: compute the embeddings of a release from the histories in Redis, or from Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import click
import redis.exceptions
from kafka import KafkaConsumer
from rich.progress import Progress

from models.contract import LISTENS, history_key
from models.release import load_release
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of, records_between
from stream.broker.publish import Publisher
from stream.commands.tables import progress_bar
from stream.listens.agent import ListensAgent, listens_agent, usable_tower
from stream.listens.handler import ListenHandler
from stream.settings import Settings
from stream.store.client import async_client, unusable
from stream.store.histories import NOTHING
from stream.store.users import register_release

_USERS_AT_ONCE = 256
_RECORDS_AT_ONCE = 4000


def rebuild_users(settings: Settings, *, rate: float, since_minutes: int | None = None) -> None:
    """Write the embeddings of the configured release anew, for all users of whom Redis has a history.

    Users whose embedding has the revision of their history are left out. So a run that was stopped goes on where it
    was, and a run beside workers does nothing twice. A track that was tagged since counts from a user's next listen.

    Args:
        settings: of Kafka, Redis and the release.
        rate: at most how many users, or listens from Kafka, a second.
        since_minutes: first add the listens of so many minutes from Kafka again, for histories that Redis has lost.

    Raises:
        ReleaseError: the release cannot be used, or has no user tower.
        SettingsError: its tower reads more listens than are kept.
        KafkaUnusable, RedisUnusable: one of them is away; what was done stays, and running it again goes on.
    """
    rebuilt, up_to_date = asyncio.run(_rebuild(settings, rate=rate, since_minutes=since_minutes))
    click.echo(f"{rebuilt:,} users rebuilt, {up_to_date:,} were up to date")


async def _rebuild(settings: Settings, *, rate: float, since_minutes: int | None) -> tuple[int, int]:
    release = load_release(settings.worker.release)
    tower = usable_tower(settings, release)
    client = async_client(settings.redis)
    try:
        with kafka_producer(settings, linger_ms=5) as producer, progress_bar() as progress:
            publisher = cast("Publisher", _Publisher(producer, settings))
            agent = listens_agent(settings, release, tower, client, publisher)
            await register_release(client, release.release_id, key_prefix=settings.redis.key_prefix)
            if since_minutes is not None:
                since_ms = time.time_ns() // 1_000_000 - since_minutes * 60_000
                await _add_listens(settings, agent.handler, progress, rate=rate, since_ms=since_ms)
            return await _embed_all(agent, client, progress, rate=rate, key_prefix=settings.redis.key_prefix)
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        raise unusable(settings.redis, error) from error
    finally:
        await client.aclose()


async def _embed_all(
    agent: ListensAgent, client: Any, progress: Progress, *, rate: float, key_prefix: str
) -> tuple[int, int]:
    """How many users were embedded anew, and how many were up to date."""
    total = 0
    async for user_ids in _users(client, key_prefix):
        total += len(user_ids)
    task = progress.add_task("users", total=total)
    started, rebuilt, seen = time.monotonic(), 0, 0
    async for user_ids in _users(client, key_prefix):
        states = await agent.histories.read(user_ids)
        held = await agent.users.revisions(user_ids)
        due = [
            user_id for user_id, revision in zip(user_ids, held, strict=True) if states[user_id].revision != revision
        ]
        await agent.handler.refresh(dict.fromkeys(due, NOTHING))
        rebuilt, seen = rebuilt + len(due), seen + len(user_ids)
        progress.update(task, completed=seen)
        await asyncio.sleep(max(0.0, started + rebuilt / rate - time.monotonic()))
    return rebuilt, seen - rebuilt


async def _users(client: Any, key_prefix: str) -> AsyncIterator[list[str]]:
    """All users of whom Redis has a history, in parts; while histories come and go, some perhaps twice."""
    before, _, after = history_key("*", prefix=key_prefix).partition("*")
    part: list[str] = []
    async for key in client.scan_iter(match=f"{before}*{after}", count=1000):
        part.append(key[len(before) : -len(after)].decode())
        if len(part) == _USERS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part


async def _add_listens(
    settings: Settings, handler: ListenHandler, progress: Progress, *, rate: float, since_ms: int
) -> None:
    """Have the handler take the listens that Kafka holds from a time on, by Kafka's time."""
    with kafka_client(
        KafkaConsumer, settings.kafka, enable_auto_commit=False, allow_auto_create_topics=False
    ) as consumer:
        places = partitions_of(consumer, settings.topics.named(LISTENS))
        ends = consumer.end_offsets(places)
        firsts = consumer.offsets_for_times(dict.fromkeys(places, since_ms))
        starts = {place: first.offset if (first := firsts[place]) else ends[place] for place in places}
        task = progress.add_task("listens", total=sum(ends[place] - starts[place] for place in places))
        started, taken = time.monotonic(), 0
        records = records_between(consumer, starts, ends)
        while part := await asyncio.to_thread(_next, records):
            await handler.handle_batch(part)
            taken += len(part)
            progress.update(task, completed=taken)
            await asyncio.sleep(max(0.0, started + taken / rate - time.monotonic()))


def _next(records: Iterator[Any]) -> list[Any]:
    return [record for _, record in zip(range(_RECORDS_AT_ONCE), records, strict=False)]


class _Publisher:
    """What a ListenHandler publishes, through kafka-python."""

    def __init__(self, producer: Any, settings: Settings) -> None:
        self._producer = producer
        self._settings = settings

    async def send_many(self, topic: str, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """As Publisher.send_many; raises kafka-python's KafkaError."""
        await asyncio.to_thread(self._send, self._settings.topics.named(topic), records)

    def _send(self, topic: str, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        for delivery in [self._producer.send(topic, key=key, value=value) for key, value in records]:
            delivery.get(DELIVERY_TIMEOUT_S)

    async def dead_letter(self, *_: Any, **__: Any) -> None:
        """Nothing: the workers dead-lettered the record when it came."""
