"""`tastewave listen`: publish listens, and wait until their user has moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import uuid4

import click
from kafka import KafkaConsumer
from kafka.errors import KafkaError

from models.contract import LISTENS
from models.errors import TastewaveError
from models.events import Kind, Listen, UserEmbedded, encode_event
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of
from stream.reader.answers import read_user
from stream.settings import Settings
from stream.store.client import sync_client

_ASKED_EVERY_S = 0.05
_LENGTH_MS = 180_000


class ListenFailed(TastewaveError):
    """Kafka did not take a listen, or nobody answered it in time."""


def listen(
    settings: Settings,
    user_id: str,
    track_ids: Sequence[str],
    *,
    kind: Kind = "play",
    at: int | None = None,
    played_ms: int | None = None,
    duration_ms: int | None = None,
    wait: bool = False,
    timeout_s: float = 30.0,
) -> None:
    """Publish a listen of a user for each track, a millisecond apart.

    Args:
        settings: how to reach Kafka and Redis.
        user_id: who listens.
        track_ids: to what, oldest first.
        kind: of all of them.
        at: time of the newest, ms; now when None.
        played_ms: of plays and skips; a play is heard to its end and a skip at once when None.
        duration_ms: length of the tracks of plays and skips; three minutes when None.
        wait: whether to wait until the embedding in Redis was computed anew and knows of an event as new as they are.
        timeout_s: with wait, give up after so long.

    Raises:
        ListenFailed: a listen breaks the contract, Kafka did not take it, or no embedding came in time.
        KafkaUnusable: Kafka is away, or the topic is missing.
        RedisUnusable: with wait, Redis is away.
    """
    newest = time.time_ns() // 1_000_000 if at is None else at
    if kind in ("play", "skip"):
        duration_ms = _LENGTH_MS if duration_ms is None else duration_ms
        if played_ms is None:
            played_ms = duration_ms if kind == "play" else 0
    try:
        events = [
            Listen(
                event_id=uuid4().hex,
                user_id=user_id,
                track_id=track_id,
                kind=kind,
                at=newest - later,
                played_ms=played_ms,
                duration_ms=duration_ms,
            )
            for later, track_id in zip(reversed(range(len(track_ids))), track_ids, strict=True)
        ]
    except ValueError as error:
        raise ListenFailed(f"the listen breaks the contract ({error}); see deploy/docs/contract.md") from error
    known = _user(settings, user_id) if wait else None
    _publish(settings, events)
    if wait:
        _wait(settings, user_id, newest, known.revision if known else 0, timeout_s=timeout_s)
    listens = f"{len(events)} listen{'s' if len(events) > 1 else ''} ({kind})"
    click.echo(f"{listens} of {user_id} {'counted' if wait else 'published'}")


def _publish(settings: Settings, events: Sequence[Listen]) -> None:
    topic = settings.topics.named(LISTENS)
    with kafka_client(KafkaConsumer, settings.kafka, allow_auto_create_topics=False) as consumer:
        partitions_of(consumer, topic)
    with kafka_producer(settings) as producer:
        deliveries = [producer.send(topic, key=one.user_id.encode(), value=encode_event(one)) for one in events]
        for delivery in deliveries:
            try:
                delivery.get(DELIVERY_TIMEOUT_S)
            except KafkaError as error:
                raise ListenFailed(f"Kafka did not take a listen ({error}); publish it again") from error


def _user(settings: Settings, user_id: str) -> UserEmbedded | None:
    with sync_client(settings.redis) as client:
        return read_user(client, user_id, key_prefix=settings.redis.key_prefix)


def _wait(settings: Settings, user_id: str, newest: int, revision: int, *, timeout_s: float) -> None:
    """Until the user's embedding has a revision after this one and an event as new as `newest`."""
    deadline = time.monotonic() + timeout_s
    with sync_client(settings.redis) as client:
        while True:
            user = read_user(client, user_id, key_prefix=settings.redis.key_prefix)
            if user and user.revision > revision and user.event_time >= newest:
                return
            if time.monotonic() > deadline:
                raise ListenFailed(
                    f"no new embedding of {user_id} came for {timeout_s:g} s; check that `tastewave worker listens` is "
                    "running and ready. A listen that was told before, is older than all that is kept or was forgotten "
                    "brings none"
                )
            time.sleep(_ASKED_EVERY_S)
