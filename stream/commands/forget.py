"""`tastewave forget`: remove a user or a track everywhere, keep it away, and say what is left where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import click
import redis.exceptions
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError

from models.contract import (
    DEAD_LETTER,
    FORGOTTEN,
    LISTENS,
    TRACKS_CORRECTED,
    TRACKS_FEATURES,
    TRACKS_TAGGED,
    TRACKS_UPLOADED,
    USERS_EMBEDDED,
)
from models.errors import TastewaveError
from models.events import Forgotten, encode_event
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of
from stream.commands.tables import print_facts, print_table, utc
from stream.commands.topics import Topic, describe_topics
from stream.settings import Settings
from stream.store.client import async_client, unusable
from stream.store.forgotten import ForgottenTrack, ForgottenUser, forget_track, forget_user
from stream.store.users import known_releases

_EVENTS: dict[Literal["user", "track"], tuple[str, ...]] = {
    "user": (LISTENS, DEAD_LETTER),
    "track": (TRACKS_UPLOADED, LISTENS, DEAD_LETTER),
}
_ANSWERS: dict[Literal["user", "track"], tuple[str, ...]] = {
    "user": (USERS_EMBEDDED,),
    "track": (TRACKS_TAGGED, TRACKS_FEATURES, TRACKS_CORRECTED),
}

_EMPTIED = {
    USERS_EMBEDDED: "{} answers",
    TRACKS_TAGGED: "{} answers",
    TRACKS_FEATURES: "features",
    TRACKS_CORRECTED: "corrections",
}


class ForgetFailed(TastewaveError):
    """Kafka did not take what says that somebody is forgotten."""


def forget(settings: Settings, kind: Literal["user", "track"], name: str) -> None:
    """Forget a user or a track as of now, and print a receipt.

    The fact is published first, so that whatever happens afterwards, offline jobs and a repeated run know of it.
    Running it again does no harm.

    Args:
        settings: how to reach Kafka and Redis.
        kind: of what is forgotten.
        name: its id.

    Raises:
        ForgetFailed: the id breaks the contract, or Kafka did not take a record.
        KafkaUnusable: Kafka is away, or a topic is missing.
        RedisUnusable: Redis is away.
    """
    try:
        fact = Forgotten(kind=kind, id=name, forgotten_at=time.time_ns() // 1_000_000)
    except ValueError as error:
        raise ForgetFailed(f"the id breaks the contract ({error})") from error
    topics = (FORGOTTEN, *_ANSWERS[kind], *_EVENTS[kind])
    with kafka_client(KafkaConsumer, settings.kafka, allow_auto_create_topics=False) as consumer:
        for topic in topics:
            partitions_of(consumer, settings.topics.named(topic))
    _publish(settings, FORGOTTEN, [(f"{kind}:{name}", encode_event(fact))])
    releases, removed = asyncio.run(_forget_in_redis(settings, fact))
    tombstones = [f"{release}:{name}" for release in releases]
    _publish(settings, _ANSWERS[kind][0], [(key, None) for key in tombstones])
    if kind == "track":
        _publish(settings, TRACKS_FEATURES, [(name, None)])
        _publish(settings, TRACKS_CORRECTED, [(name, None)])
    _print_receipt(fact, removed, tombstones, settings)


async def _forget_in_redis(settings: Settings, fact: Forgotten) -> tuple[list[str], ForgottenUser | ForgottenTrack]:
    """The releases that may have answers, and what was removed."""
    prefix = settings.redis.key_prefix
    client = async_client(settings.redis)
    try:
        releases = await known_releases(client, key_prefix=prefix)
        remove = forget_user if fact.kind == "user" else forget_track
        return releases, await remove(client, fact.id, fact.forgotten_at, key_prefix=prefix, releases=releases)
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        raise unusable(settings.redis, error) from error
    finally:
        await client.aclose()


def _publish(settings: Settings, topic: str, records: Sequence[tuple[str, bytes | None]]) -> None:
    with kafka_producer(settings) as producer:
        name = settings.topics.named(topic)
        deliveries = [producer.send(name, key=key.encode(), value=value) for key, value in records]
        for delivery in deliveries:
            try:
                delivery.get(DELIVERY_TIMEOUT_S)
            except KafkaError as error:
                raise ForgetFailed(f"Kafka did not take a record of {name} ({error}); run this again") from error


def _print_receipt(
    fact: Forgotten, removed: ForgottenUser | ForgottenTrack, tombstones: Sequence[str], settings: Settings
) -> None:
    facts = {fact.kind: fact.id, "forgotten up to": utc(removed.forgotten_at, timespec="milliseconds")}
    if isinstance(removed, ForgottenUser):
        facts |= {
            "removed from Redis": f"{removed.listens} listens, {removed.feedback} likes, dislikes and exclusions",
            "embeddings removed": ", ".join(removed.releases) or "none",
            "later events, which stay": str(removed.left) if removed.left else None,
        }
    else:
        facts |= {
            "answers removed": ", ".join(removed.releases) or "none",
            "mark of its features": "removed" if removed.features else "none",
        }
    print_facts(facts, title="forgotten")
    rows = [*_events_left(settings, fact, removed.forgotten_at), *_answers_left(settings, fact, len(tombstones))]
    print_table(("Kafka still holds", "in", "until"), rows)
    click.echo(
        "Dumps and logs in files are not changed: give the jobs that read them the dump of "
        f"{settings.topics.named(FORGOTTEN)}. Towers that were trained before know nothing of a user, and keep the "
        "vector of a track until they are trained again."
    )


def _events_left(settings: Settings, fact: Forgotten, forgotten_at: int) -> Iterator[tuple[str, str, str]]:
    for topic in _described(settings, _EVENTS[fact.kind]):
        kept_ms = int(topic.configs["retention.ms"])
        yield "the events", topic.name, utc(forgotten_at + kept_ms) if kept_ms >= 0 else "they are deleted by hand"


def _answers_left(settings: Settings, fact: Forgotten, releases: int) -> Iterator[tuple[str, str, str]]:
    for topic in _described(settings, _ANSWERS[fact.kind]):
        hours = int(topic.configs["delete.retention.ms"]) / 3_600_000
        what = next(what for name, what in _EMPTIED.items() if topic.name.endswith(name))
        until = f"the next compaction; the empty values {hours:g} h longer"
        yield f"{what.format(releases)}, emptied", topic.name, until


def _described(settings: Settings, topics: Sequence[str]) -> list[Topic]:
    names = [settings.topics.named(topic) for topic in topics]
    with kafka_client(KafkaAdminClient, settings.kafka) as admin:
        described = describe_topics(admin, names)
    return [described[name] for name in names]
