"""`tastewave rewind`: move a role's consumer group back, so that its workers answer a stretch of time again."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import click
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import (  # the bundled stubs are of an older kafka-python
    OffsetSpec,  # pyright: ignore[reportAttributeAccessIssue]
    OffsetTimestamp,  # pyright: ignore[reportAttributeAccessIssue]
)
from kafka.errors import NoError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata, TopicPartition

from models.contract import TRACKS_UPLOADED
from models.errors import TastewaveError
from models.release import load_release
from stream.broker.operator import kafka_client, partitions_of
from stream.settings import Settings

_SESSION_TIMEOUT_S = 10


class RewindRefused(TastewaveError):
    """The workers run, or their consumer group is unknown."""


class Move(NamedTuple):
    """What a rewind does to a partition; stays where it is when both offsets are equal.

    oldest_ms is the Kafka time of the first record that is left where retention may have dropped a part of the
    time, 0 where it left none, and None where the whole time is there.
    """

    partition: int
    from_offset: int
    to_offset: int
    oldest_ms: int | None

    @property
    def events(self) -> int:
        """How many events will be answered again."""
        return self.from_offset - self.to_offset


def rewind_tracks(settings: Settings, *, minutes: int, release: str | None = None, dry_run: bool = False) -> None:
    """Move the group of a release's tracks workers back to where the uploads of `minutes` ago begin, by Kafka's time.

    No partition moves forward, or to before what Kafka still holds. release: the configured one when None.

    Raises:
        RewindRefused: workers of the release run, or it has no consumer group.
        KafkaUnusable: Kafka is away, or the topic is missing.
        ReleaseError: the configured release cannot be read.
    """
    release = release or load_release(settings.worker.release).release_id
    group = settings.topics.named(f"tastewave.tracks.{release}")
    since_ms = time.time_ns() // 1_000_000 - minutes * 60_000
    with (
        kafka_client(KafkaAdminClient, settings.kafka) as admin,
        kafka_client(KafkaConsumer, settings.kafka, allow_auto_create_topics=False) as consumer,
    ):
        places = partitions_of(consumer, settings.topics.named(TRACKS_UPLOADED))
        moves = plan(admin, group, places, since_ms=max(0, since_ms))
        if not moves:
            raise RewindRefused(
                f"consumer group {group} has committed nothing, so there is nothing to answer again; "
                "check --release or TASTEWAVE_RELEASE, and TASTEWAVE_TOPIC_PREFIX"
            )
        if not dry_run:
            _commit(admin, group, release, moves, settings.topics.named(TRACKS_UPLOADED))
    _print(moves, minutes=minutes, dry_run=dry_run)


def plan(admin: Any, group: str, places: Iterable[TopicPartition], *, since_ms: int) -> list[Move]:
    """Where each partition that the group has committed would go. Raises KafkaError."""
    committed = {
        place: held.offset
        for place, held in admin.list_group_offsets({group: list(places)})[group].items()
        if held.offset >= 0
    }
    if not committed:
        return []
    starts = admin.list_partition_offsets(dict.fromkeys(committed, OffsetSpec.EARLIEST))
    firsts = admin.list_partition_offsets(dict.fromkeys(committed, OffsetTimestamp(since_ms)))
    moves = []
    for place, held in sorted(committed.items()):
        start, first = starts[place].offset, firsts[place]
        found = first.offset >= 0
        target = min(first.offset, held) if found else held
        dropped = 0 < start == (first.offset if found else held)
        moves.append(Move(place.partition, held, target, (first.timestamp if found else 0) if dropped else None))
    return moves


def _commit(admin: Any, group: str, release: str, moves: Iterable[Move], topic: str) -> None:
    offsets = {
        TopicPartition(topic, move.partition): OffsetAndMetadata(move.to_offset, "", -1)
        for move in moves
        if move.events
    }
    for refusal in admin.alter_group_offsets(group, offsets).values():
        if refusal is UnknownMemberIdError:  # Kafka takes the offsets of a group with members from its members alone
            members = admin.describe_groups([group])[group]["members"]
            hosts = ", ".join(sorted({member["client_host"].lstrip("/") for member in members}))
            raise RewindRefused(
                f"the tracks workers of release {release} run ({len(members)} in consumer group {group}, on {hosts}); "
                f"stop them all (one that was killed counts for {_SESSION_TIMEOUT_S} s more), and run this again"
            )
        if refusal is not NoError:
            raise refusal


def _print(moves: list[Move], *, minutes: int, dry_run: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    total = sum(move.events for move in moves)
    events = f"{total} event" if total == 1 else f"{total} events"
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("partition", "from", "to", "events again"):
        table.add_column(name, justify="right")
    for move in moves:
        table.add_row(str(move.partition), str(move.from_offset), str(move.to_offset), str(move.events))
    Console().print(table)
    if dropped := [move for move in moves if move.oldest_ms is not None]:
        places = ", ".join(
            f"{move.partition} (left from {_time(move.oldest_ms)} on)"
            if move.oldest_ms
            else f"{move.partition} (empty)"
            for move in dropped
        )
        click.echo(
            f"Kafka has dropped older uploads (retention), some of them perhaps of these {minutes} minutes, "
            f"in partition {places}; what of them Redis lost must be uploaded again."
        )
    if not total:
        click.echo(f"Nothing to rewind: no upload of the last {minutes} minutes has been answered.")
    elif dry_run:
        click.echo(f"{events} would be answered again; nothing was changed.")
    else:
        click.echo(f"Start the workers: they answer {events} again, at once where Redis still holds the answer.")


def _time(milliseconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(milliseconds / 1000, tz=datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
