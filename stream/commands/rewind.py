"""`tastewave rewind`: move the consumer group of workers back, so that they answer a stretch of time again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import click
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import (  # the bundled stubs are of an older kafka-python
    OffsetSpec,  # pyright: ignore[reportAttributeAccessIssue]
    OffsetTimestamp,  # pyright: ignore[reportAttributeAccessIssue]
)
from kafka.errors import NoError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata, TopicPartition
from rich.table import Column

from models.contract import TRACKS_UPLOADED
from models.errors import TastewaveError
from models.release import load_release
from stream.broker.groups import SESSION_TIMEOUT_S
from stream.broker.operator import kafka_client, partitions_of
from stream.commands.tables import print_table, utc
from stream.settings import Settings


class RewindRefused(TastewaveError):
    """Workers of the release are running, or its consumer group has committed nothing."""


class Move(NamedTuple):
    """What a rewind does to a partition.

    Attributes:
        partition: its number.
        from_offset: what the group has committed.
        to_offset: what it will have committed; the same where there is nothing to answer again.
        by_offsets: whether it goes back further than the times of the records say, since these are not in order.
        oldest_ms: None where Kafka still holds the whole time. Where retention may have dropped a part of it: the
            Kafka time of the first record that is left, or 0 where none is left.
    """

    partition: int
    from_offset: int
    to_offset: int
    by_offsets: bool
    oldest_ms: int | None

    @property
    def events(self) -> int:
        """How many events the workers will answer again."""
        return self.from_offset - self.to_offset


def rewind_tracks(settings: Settings, *, minutes: int, release: str | None = None, dry_run: bool = False) -> None:
    """Move the consumer group of tracks workers back to the first upload of the last minutes.

    Kafka's time of a record counts, not its uploaded_at. Where these times are not in order, all that follows the
    newest record before that time counts too. No partition moves forward, or to before what Kafka holds.

    Args:
        settings: of the workers.
        minutes: how far back.
        release: whose workers; those of the configured release when None.
        dry_run: print what would be done and change nothing.

    Raises:
        RewindRefused: workers of the release are running, or its consumer group has committed nothing.
        KafkaUnusable: Kafka is away, or the topic is missing.
        ReleaseError: the configured release cannot be read.
    """
    release = release or load_release(settings.worker.release).release_id
    group = settings.topics.consumer_group(role="tracks", release=release)
    now_ms = time.time_ns() // 1_000_000
    since_ms, credible_ms = now_ms - minutes * 60_000, now_ms - 2 * settings.topics.retention_h * 3_600_000
    with (
        kafka_client(KafkaAdminClient, settings.kafka) as admin,
        kafka_client(KafkaConsumer, settings.kafka, allow_auto_create_topics=False) as consumer,
    ):
        places = partitions_of(consumer, settings.topics.named(TRACKS_UPLOADED))
        moves = plan(admin, group, places, since_ms=max(0, since_ms), credible_ms=credible_ms)
        if not moves:
            raise RewindRefused(
                f"consumer group {group} has committed nothing, so there is nothing to answer again; "
                "check --release or TASTEWAVE_RELEASE, and TASTEWAVE_TOPIC_PREFIX"
            )
        if not dry_run:
            _commit(admin, group, release, moves, settings.topics.named(TRACKS_UPLOADED))
    _print(moves, minutes=minutes, dry_run=dry_run)


def plan(
    admin: Any, group: str, places: Iterable[TopicPartition], *, since_ms: int, credible_ms: int = 0
) -> list[Move]:
    """The move of each partition in which the group has committed an offset. Raises KafkaError.

    Args:
        admin: a KafkaAdminClient.
        group: the consumer group.
        places: partitions of its topic.
        since_ms: the time from which on uploads are to be answered again (ms, UTC, by Kafka's time).
        credible_ms: a record that claims an earlier time did not come then, since Kafka would have dropped it.
    """
    committed = {
        place: held.offset
        for place, held in admin.list_group_offsets({group: list(places)})[group].items()
        if held.offset >= 0
    }
    if not committed:
        return []
    starts = admin.list_partition_offsets(dict.fromkeys(committed, OffsetSpec.EARLIEST))
    firsts = admin.list_partition_offsets(dict.fromkeys(committed, OffsetTimestamp(since_ms)))
    newest = _newest_before(admin, firsts, since_ms=since_ms)
    moves = []
    for place, held in sorted(committed.items()):
        start, before = starts[place].offset, newest.get(place)
        # Whatever follows a record came later than it. What claims to be older nevertheless may be of the time.
        certain = before.offset + 1 if before and before.timestamp >= credible_ms else start
        moves.append(_move(place.partition, held, start=start, first=firsts[place], certain=certain))
    return moves


def _newest_before(admin: Any, firsts: Mapping[TopicPartition, Any], *, since_ms: int) -> dict[TopicPartition, Any]:
    """Of the records before the first one of the time, the one with the latest time: its offset and timestamp.

    Kafka only tells the first record from a time on, so that time is searched by halves. Partitions without a record
    before are left out.
    """
    newest: dict[TopicPartition, Any] = {}
    lows, highs = dict.fromkeys(firsts, -1), dict.fromkeys(firsts, since_ms)
    while asked := {
        place: OffsetTimestamp((lows[place] + highs[place]) // 2) for place in firsts if highs[place] - lows[place] > 1
    }:
        for place, first in admin.list_partition_offsets(asked).items():
            is_older = first.offset >= 0 and first.timestamp < since_ms  # a newer one may have come meanwhile
            if is_older and (firsts[place].offset < 0 or first.offset < firsts[place].offset):
                newest[place], lows[place] = first, first.timestamp
            else:
                highs[place] = asked[place]
    return newest


def _move(partition: int, held: int, *, start: int, first: Any, certain: int) -> Move:
    """The move of one partition.

    Args:
        partition: its number.
        held: the offset that the group has committed.
        start: the first offset that Kafka still holds.
        first: offset and timestamp of the first record of the time; the offset is -1 where there is none.
        certain: the offset up to which all records are surely older.
    """
    by_time = held if first.offset < 0 else min(first.offset, held)
    to_offset = min(by_time, certain)
    if first.offset < 0:
        return Move(partition, held, to_offset, to_offset < by_time, 0 if 0 < start == held else None)
    oldest_ms = first.timestamp if 0 < start == first.offset else None
    return Move(partition, held, to_offset, to_offset < by_time, oldest_ms)


def _commit(admin: Any, group: str, release: str, moves: Iterable[Move], topic: str) -> None:
    offsets = {
        TopicPartition(topic, move.partition): OffsetAndMetadata(move.to_offset, "", -1)
        for move in moves
        if move.events
    }
    for refusal in admin.alter_group_offsets(group, offsets).values():
        if refusal is UnknownMemberIdError:  # while a group has members, Kafka takes offsets from those alone
            members = admin.describe_groups([group])[group]["members"]
            hosts = ", ".join(sorted({member["client_host"].lstrip("/") for member in members}))
            raise RewindRefused(
                f"the tracks workers of release {release} run ({len(members)} in consumer group {group}, on {hosts}); "
                f"stop them all (one that was killed counts for {SESSION_TIMEOUT_S:.0f} s more), and run this again"
            )
        if refusal is not NoError:
            raise refusal


def _print(moves: list[Move], *, minutes: int, dry_run: bool) -> None:
    total = sum(move.events for move in moves)
    events = f"{total} event" if total == 1 else f"{total} events"
    print_table(
        [Column(name, justify="right") for name in ("partition", "from", "to", "events again")],
        [(str(move.partition), str(move.from_offset), str(move.to_offset), str(move.events)) for move in moves],
    )
    if dropped := [move for move in moves if move.oldest_ms is not None]:
        places = ", ".join(
            f"{move.partition} (left from {utc(move.oldest_ms)} on)" if move.oldest_ms else f"{move.partition} (empty)"
            for move in dropped
        )
        click.echo(
            f"Kafka has dropped older uploads (retention), some of them perhaps of these {minutes} minutes, "
            f"in partition {places}; upload the tracks again whose answers Redis lost."
        )
    if odd := ", ".join(str(move.partition) for move in moves if move.by_offsets):
        click.echo(
            f"The Kafka times of the uploads are not in order in partition {odd}, which goes back by offsets: "
            f"to the last upload that is surely older than {minutes} minutes."
        )
    if not total:
        click.echo(f"Nothing to rewind: no upload of the last {minutes} minutes has been answered.")
    elif dry_run:
        click.echo(f"{events} would be answered again; nothing was changed.")
    else:
        click.echo(f"Start the workers. They answer {events} again; answers that Redis still holds are only published.")
