"""`tastewave parity`: whether users stand where the listens on Kafka put them.

What Redis holds of some users is compared with what the listens on Kafka give, by the code that the workers and
`tastewave-offline embed-users` share. Workers may run meanwhile: a user who has a listen that may not have been
answered yet, or whose state changes during the comparison, is not judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import numpy as np
import redis.exceptions
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.structs import TopicPartition
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from rich.table import Column

from models.contract import LISTENS, forgotten_user_key, user_key
from models.errors import EventError, SettingsError, TastewaveError
from models.events import Listen, UserEmbedded, decode_event
from models.history import (
    NewestEvents,
    StoredHistory,
    feedback_at,
    feedback_member,
    history_member,
    member_at,
)
from models.refresh import embed_newest, read_newest
from models.release import load_release
from models.user_tower import UserTower
from stream.broker.operator import kafka_client, partitions_of, records_between
from stream.commands.tables import print_table, progress_bar
from stream.settings import Settings, UserSettings
from stream.store.client import async_client, unusable
from stream.store.histories import HistoryStore, UserState
from stream.store.users import UserStore

_LEAST_COSINE = 1 - 1e-5  # of one embedding computed twice, in batches of other sizes
_TOLD = 20
_USERS_AT_ONCE = 1000


class ParityUnknown(TastewaveError):
    """There is nothing to compare."""


class Held(NamedTuple):
    """What Redis holds of a user.

    Attributes:
        state: history and feedback.
        embedded: where the user stands.
        forgotten_at: the time up to which the user was forgotten, ms; 0 for never.
    """

    state: UserState
    embedded: UserEmbedded
    forgotten_at: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A user who does not stand where the listens on Kafka put them.

    Attributes:
        missing: members of history and feedback that Redis lacks.
        extra: those that it has, and should not have.
        cosine: of the embedding that Redis holds and the one that the listens give; None where it hangs on the audio of
            tracks, which may have been heard since.
        listens: how many listens Redis says that the embedding was computed from.
        expected: how many there are.
    """

    user_id: str
    missing: int
    extra: int
    cosine: float | None
    listens: int
    expected: int

    @property
    def is_one(self) -> bool:
        """Whether anything differs."""
        moved = self.cosine is not None and self.cosine < _LEAST_COSINE
        return bool(self.missing or self.extra or moved or self.listens != self.expected)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found.

    Attributes:
        release: whose embeddings.
        sampled: users that were drawn.
        compared: those of them that were judged.
        differing: those that differ.
        differences: the first of them.
    """

    release: str
    sampled: int
    compared: int
    differing: int
    differences: tuple[Difference, ...]


class _Stretch(NamedTuple):
    """What is read of the topic.

    Attributes:
        starts: the first offset of each partition.
        ends: the offset after the last one.
        complete_ms: from this time on, all listens of a user are among them, ms.
    """

    starts: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    complete_ms: int


def check_parity(
    settings: Settings, *, sample: int, minutes: int, as_json: bool = False, metrics_file: Path | None = None
) -> bool:
    """Compare users with the listens on Kafka, print what differs, and return whether nothing does.

    Args:
        settings: of the workers; the release is theirs.
        sample: how many users are drawn.
        minutes: how far back the topic is read, by Kafka's time. What Redis holds from before is taken as it is.
        as_json: print one JSON line.
        metrics_file: where the outcome is written as metrics too, all at once.

    Raises:
        ParityUnknown: no worker of the release has answered a listen, or Redis holds no user of the release.
        SettingsError: the file cannot be written.
        KafkaUnusable, RedisUnusable: one of them is away.
        ReleaseError: the release cannot be read, or has no user tower.
    """
    release = load_release(settings.worker.release)
    tower = release.user_tower()
    group = settings.topics.consumer_group(role="listens", release=release.release_id)
    with (
        kafka_client(KafkaAdminClient, settings.kafka) as admin,
        kafka_client(KafkaConsumer, settings.kafka, allow_auto_create_topics=False) as consumer,
    ):
        places = partitions_of(consumer, settings.topics.named(LISTENS))
        answered = _answered(admin, group, places)
        held = _from_redis(settings, release.release_id, sample=sample)
        stretch = _stretch(settings, consumer, places, since_ms=time.time_ns() // 1_000_000 - minutes * 60_000)
        expected = _Expected(settings, held, stretch, answered)
        for record in _shown(records_between(consumer, stretch.starts, stretch.ends), stretch):
            expected.add(record)
    judged = {user_id: held[user_id] for user_id in held if user_id not in expected.unanswered}
    hears = release.configuration.audio_encoder is not msgspec.UNSET
    found = [one for one in _differences(tower, judged, expected.stored(), hears=hears) if one.is_one]
    again = _from_redis(settings, release.release_id, user_ids=[one.user_id for one in found])
    still = [one for one in found if _is_same(judged[one.user_id], again.get(one.user_id))]
    report = Report(
        release=release.release_id,
        sampled=len(held),
        compared=len(judged) - (len(found) - len(still)),
        differing=len(still),
        differences=tuple(still[:_TOLD]),
    )
    _print(report, as_json=as_json)
    if metrics_file:
        _write_metrics(report, metrics_file)
    return not still


def _is_same(held: Held, again: Held | None) -> bool:
    """Whether nothing has changed since."""
    return again is not None and again.state.revision == held.state.revision


def _answered(admin: Any, group: str, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """The offset of each partition before which all listens have been answered."""
    held = admin.list_group_offsets({group: list(places)})[group]
    if not any(held[place].offset >= 0 for place in held):
        raise ParityUnknown(
            f"consumer group {group} has committed nothing, so that there is nothing to compare; start "
            "`tastewave worker listens`, or check TASTEWAVE_RELEASE and TASTEWAVE_TOPIC_PREFIX"
        )
    return {place: max(0, held[place].offset) if place in held else 0 for place in places}


def _stretch(settings: Settings, consumer: Any, places: Sequence[TopicPartition], *, since_ms: int) -> _Stretch:
    begins, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
    firsts = consumer.offsets_for_times(dict.fromkeys(places, max(0, since_ms)))
    starts = {place: firsts[place].offset if firsts[place] else ends[place] for place in places}
    # A listen may be dated a little later than Kafka got it, so that one from before the stretch may be so late.
    dropped = [firsts[place].timestamp for place in places if firsts[place] and 0 < begins[place] == starts[place]]
    complete_ms = max([since_ms, *dropped]) + _tolerance_ms(settings)
    return _Stretch(starts, ends, complete_ms if any(starts.values()) else 0)


def _tolerance_ms(settings: Settings) -> int:
    return int(settings.worker.future_tolerance_s * 1000)


def _shown(records: Iterable[Any], stretch: _Stretch) -> Iterator[Any]:
    """The records, with a progress bar where a person looks on."""
    with progress_bar(shown=sys.stderr.isatty()) as progress:
        total = sum(end - stretch.starts[place] for place, end in stretch.ends.items())
        yield from progress.track(records, total=total, description="Reading listens")


class _Expected:
    """What the listens on Kafka give, of the users that were drawn.

    Attributes:
        unanswered: users with a listen that no worker may have answered before Redis was read.
    """

    def __init__(
        self, settings: Settings, held: Mapping[str, Held], stretch: _Stretch, answered: Mapping[TopicPartition, int]
    ) -> None:
        self._held, self._stretch, self._answered = held, stretch, answered
        self._tolerance_ms = _tolerance_ms(settings)
        self._of_user = {user_id: self._from_before(one, settings.users) for user_id, one in held.items()}
        self.unanswered = set[str]()

    def _from_before(self, held: Held, kept: UserSettings) -> NewestEvents:
        newest = NewestEvents(history=kept.history, feedback=kept.feedback)
        complete_ms, (members, feedback) = self._stretch.complete_ms, held.state.stored
        newest.add_stored(
            StoredHistory(
                [member for member in members if member_at(member) < complete_ms],
                [(member, score) for member, score in feedback if feedback_at(member, score) < complete_ms],
            )
        )
        return newest

    def add(self, record: Any) -> None:
        """Add a record of the topic."""
        with contextlib.suppress(EventError):
            listen = decode_event(record.value, Listen)
            if (held := self._held.get(listen.user_id)) is None:
                return
            place = TopicPartition(record.topic, record.partition)
            if record.offset >= self._answered[place]:
                self.unanswered.add(listen.user_id)
            elif listen.at > held.forgotten_at and not self._was_refused(record, listen, held.state.stored):
                self._of_user[listen.user_id].add(listen)

    def _was_refused(self, record: Any, listen: Listen, stored: StoredHistory) -> bool:
        """Whether a listen was dated so far ahead that a worker refused it: that hangs on when the worker got it."""
        if listen.at - record.timestamp <= self._tolerance_ms:
            return False
        return history_member(listen) not in stored.members and feedback_member(listen) not in dict(stored.feedback)

    def stored(self) -> dict[str, StoredHistory]:
        """History and feedback of each user."""
        return {user_id: newest.stored() for user_id, newest in self._of_user.items()}


def _differences(
    tower: UserTower, held: Mapping[str, Held], expected: Mapping[str, StoredHistory], *, hears: bool
) -> Iterator[Difference]:
    """Each user; hears: whether tracks that the tower does not know count by their audio."""
    user_ids = list(held)
    for first in range(0, len(user_ids), _USERS_AT_ONCE):
        part = user_ids[first : first + _USERS_AT_ONCE]
        newest = read_newest(tower, [expected[user_id] for user_id in part])
        refreshed = embed_newest(tower, newest, {})
        by_audio = np.any(newest.rows >= len(tower.items), axis=1).tolist() if hears else [False] * len(part)
        for number, user_id in enumerate(part):
            stored, embedded = held[user_id].state.stored, held[user_id].embedded
            there = {*stored.members, *stored.feedback}
            wanted = {*expected[user_id].members, *expected[user_id].feedback}
            cosine = float(np.dot(np.array(embedded.embedding, np.float32), refreshed.embeddings[number]))
            yield Difference(
                user_id=user_id,
                missing=len(wanted - there),
                extra=len(there - wanted),
                cosine=None if by_audio[number] else cosine,
                listens=embedded.listens,
                expected=int(refreshed.listens[number]),
            )


def _from_redis(
    settings: Settings, release: str, *, sample: int = 0, user_ids: Sequence[str] | None = None
) -> dict[str, Held]:
    """What Redis holds of these users, or of some of the release that are drawn. Raises RedisUnusable."""
    try:
        return asyncio.run(_read(settings, release, sample=sample, user_ids=user_ids))
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        raise unusable(settings.redis, error) from error


async def _read(settings: Settings, release: str, *, sample: int, user_ids: Sequence[str] | None) -> dict[str, Held]:
    prefix, cluster = settings.redis.key_prefix, settings.redis.cluster
    async with contextlib.aclosing(async_client(settings.redis)) as client:
        histories = HistoryStore(client, settings.users, key_prefix=prefix, cluster=cluster)
        users = UserStore(client, release, key_prefix=prefix, cluster=cluster, ttl=1)  # which a reader does not use
        if user_ids is None:
            user_ids = await _draw(client, release, prefix, sample)
        states = await histories.read(user_ids)
        embedded = await users.get(user_ids)
        pipeline = client.pipeline(transaction=False)
        for user_id in user_ids:
            pipeline.get(forgotten_user_key(user_id, prefix=prefix))
        marks = await pipeline.execute() if user_ids else []
    return {
        user_id: Held(states[user_id], one, int(mark.split()[0]) if mark else 0)
        for user_id, one, mark in zip(user_ids, embedded, marks, strict=True)
        if one is not None
    }


async def _draw(client: Any, release: str, prefix: str, sample: int) -> list[str]:
    """Users of a release, each as likely as any other."""
    pattern = user_key(release, "*", prefix=prefix)
    before, behind = (len(part) for part in pattern.encode().split(b"*"))
    drawn, seen = list[bytes](), 0
    async for key in client.scan_iter(match=pattern, count=1000):
        seen += 1
        if len(drawn) < sample:
            drawn.append(key)
        elif (place := random.randrange(seen)) < sample:  # noqa: S311
            drawn[place] = key
    if not drawn:
        raise ParityUnknown(
            f"Redis holds no user of release {release}; start `tastewave worker listens`, or check TASTEWAVE_RELEASE "
            "and TASTEWAVE_REDIS_KEY_PREFIX"
        )
    return [key[before : len(key) - behind].decode() for key in dict.fromkeys(drawn)]


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    if report.differences:
        right = [Column(name, justify="right") for name in ("missing", "extra", "listens", "expected", "cosine")]
        print_table(
            ["user", *right],
            [
                (
                    one.user_id,
                    *map(str, (one.missing, one.extra, one.listens, one.expected)),
                    "-" if one.cosine is None else f"{one.cosine:.6f}",
                )
                for one in report.differences
            ],
        )
    waiting = report.sampled - report.compared
    click.echo(
        f"{report.differing:,} of {report.compared:,} users differ from the listens on Kafka (release {report.release})"
        + (f"; {waiting:,} more had listens meanwhile and were not compared." if waiting else ".")
    )


def _write_metrics(report: Report, file: Path) -> None:
    """Write them in a registry of their own: this process has no /metrics."""
    registry = CollectorRegistry()
    for name, help_, value in (
        ("compared_users", "Users that the last comparison judged.", report.compared),
        ("differing_users", "Those of them who do not stand where their listens put them.", report.differing),
        ("checked_timestamp_seconds", "When the last comparison ended.", time.time()),
    ):
        Gauge(f"tastewave_parity_{name}", help_, ("release",), registry=registry).labels(report.release).set(value)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be written ({error.strerror}); give --metrics-file a file in a folder that exists"
        ) from error
