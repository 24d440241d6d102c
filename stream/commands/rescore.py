"""`tastewave release rescore`: a release's answers to all tracks whose features Kafka holds, without their audio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec
import redis.exceptions
from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition

from models.contract import TRACKS_FEATURES, TRACKS_TAGGED, live_key
from models.events import TrackFeatures, TrackTagged, encode_event
from models.release import Release, load_release
from models.rescoring import WHOLE, Lacking, Rescorer
from stream.broker.operator import DELIVERY_TIMEOUT_S, kafka_client, kafka_producer, partitions_of, records_between
from stream.commands.tables import print_facts, progress_bar
from stream.settings import Settings
from stream.store.client import async_client, unusable
from stream.store.many_tracks import ManyTracks
from stream.store.tracks import TrackStore
from stream.store.users import register_release

_MOST_TRACKS_AT_ONCE = 1000
_MOST_BYTES_AT_ONCE = 32 * 1024 * 1024
_PARTS_A_SECOND = 10
_ROLE = "rescore"
_features = msgspec.msgpack.Decoder(TrackFeatures)


def rescore(
    settings: Settings, where: str | None, *, rate: float, from_start: bool = False, lacking: Path | None = None
) -> None:
    """Write and publish what a release answers to each track of the features topic, up to where the topic ends now.

    After each part, the consumer group of the release's rescoring is committed. So a run that was stopped goes on where
    it was, and a later run takes what came since. Answers to later uploads, and first answers to the same one, stand.

    Args:
        settings: of Kafka and Redis, and of the release where none is named.
        where: folder or URL of the release; that of the settings when None.
        rate: at most how many tracks a second.
        from_start: begin with the first track again, where Redis has lost answers.
        lacking: file to which a JSON line is added for each track that has to be heard.

    Raises:
        ReleaseError: the release cannot be used.
        KafkaUnusable, RedisUnusable: one of them is away; what was done stays, and running it again goes on.
    """
    release = load_release(where or settings.worker.release)
    with lacking.open("a") if lacking else contextlib.nullcontext() as file:
        counts, lacks = asyncio.run(_rescore(settings, release, rate=rate, from_start=from_start, file=file))
    facts = {what: f"{counts[what]:,} tracks" for what in ("answered", "answered before", "forgotten") if counts[what]}
    facts |= {f"lacking {what}": f"{count:,} tracks" for what, count in lacks.most_common()}
    print_facts(
        facts or {"answered": "no track: nothing came since the last run"}, title=f"release {release.release_id}"
    )
    if lacks:
        click.echo(
            f"{lacks.total():,} tracks have to be heard by workers of {release.release_id}: run them, and upload those "
            "tracks again that Kafka no longer holds"
            + (f"; {lacking} lists them." if lacking else " (--lacking lists).")
        )


async def _rescore(
    settings: Settings, release: Release, *, rate: float, from_start: bool, file: TextIO | None
) -> tuple[Counter[str], Counter[str]]:
    client: Any = async_client(settings.redis)
    group = settings.topics.consumer_group(role=_ROLE, release=release.release_id)
    options = {"group_id": group, "enable_auto_commit": False, "allow_auto_create_topics": False}
    try:
        with (
            kafka_client(KafkaConsumer, settings.kafka, **options) as consumer,
            kafka_producer(settings, linger_ms=5) as producer,
            progress_bar() as progress,
        ):
            await register_release(client, release.release_id, key_prefix=settings.redis.key_prefix)
            live = await client.hget(live_key(prefix=settings.redis.key_prefix), "release")
            work = _Rescoring(settings, release, client, producer, live=live.decode() if live else None, file=file)
            places = partitions_of(consumer, settings.topics.named(TRACKS_FEATURES))
            ends = consumer.end_offsets(places)
            starts = _starts(consumer, ends, from_start=from_start)
            task = progress.add_task("tracks", total=sum(max(0, ends[place] - starts[place]) for place in places))
            began, taken = time.monotonic(), 0
            records = records_between(consumer, starts, ends)
            while part := await asyncio.to_thread(_next, records, most=rate / _PARTS_A_SECOND):
                await work.take(part)
                done = {TopicPartition(one.topic, one.partition): one.offset + 1 for one in part}
                await asyncio.to_thread(consumer.commit, {p: OffsetAndMetadata(o, "", -1) for p, o in done.items()})
                taken += len(part)
                progress.advance(task, len(part))
                await asyncio.sleep(max(0.0, began + taken / rate - time.monotonic()))
            return work.counts, work.lacks
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        raise unusable(settings.redis, error) from error
    finally:
        await client.aclose()


def _starts(consumer: Any, ends: Mapping[TopicPartition, int], *, from_start: bool) -> dict[TopicPartition, int]:
    """Where to begin in each partition: where the last run ended, if the topic is still the one that it read."""
    firsts: dict[TopicPartition, int] = consumer.beginning_offsets(list(ends))
    if from_start:
        return firsts
    held = {place: consumer.committed(place) or 0 for place in ends}
    return {place: first if held[place] > ends[place] else max(first, held[place]) for place, first in firsts.items()}


def _next(records: Iterator[Any], *, most: float) -> list[Any]:
    """The next records, as many as one part may have."""
    part, size, count = list[Any](), 0, min(_MOST_TRACKS_AT_ONCE, max(1, round(most)))
    for record in records:
        part.append(record)
        size += len(record.value or b"")
        if len(part) >= count or size >= _MOST_BYTES_AT_ONCE:
            break
    return part


class _Rescoring:
    """Answers parts of the features topic, and counts what became of the tracks."""

    def __init__(
        self, settings: Settings, release: Release, client: Any, producer: Any, *, live: str | None, file: TextIO | None
    ) -> None:
        worker, prefix = settings.worker, settings.redis.key_prefix
        self.counts, self.lacks = Counter[str](), Counter[str]()
        self._release_id, self._live = release.release_id, live
        self._topic = settings.topics.named(TRACKS_TAGGED)
        self._producer = producer
        self._file = file
        self._rescorer = Rescorer(release, top_k=worker.top_k)
        self._one = TrackStore(client, release.release_id, key_prefix=prefix, keep_taggrams=worker.store_taggram)
        self._many = ManyTracks(
            client,
            release.release_id,
            key_prefix=prefix,
            cluster=settings.redis.cluster,
            keep_taggrams=worker.store_taggram,
        )

    async def take(self, records: Sequence[Any]) -> None:
        """Answer the tracks of records of the features topic; of several records of a track the last one counts."""
        tracks = [
            track for record in {record.key: record for record in records}.values() if (track := self._read(record))
        ]
        if untold := [track for track in tracks if track.event_time is None]:
            told = iter(await self._many.with_uploads(untold, live=self._live))
            tracks = [next(told) if track.event_time is None else track for track in tracks]
        forgotten = await self._many.forgotten_at([track.track_id for track in tracks])
        pairs = zip(tracks, forgotten, strict=True)
        due = [track for track, at in pairs if track.event_time is None or track.event_time > at]
        self.counts["forgotten"] += len(tracks) - len(due)
        answers = await asyncio.to_thread(self._rescorer, due, tagged_at=time.time_ns() // 1_000_000)
        for one in answers:
            if isinstance(one, Lacking):
                self._note(one)
        await self._settle([one for one in answers if isinstance(one, TrackTagged)])
        if self._file:
            self._file.flush()

    def _read(self, record: Any) -> TrackFeatures | None:
        """The features in a record; None where they were taken back, or cannot be read."""
        if record.value is None:
            return None
        try:
            return _features.decode(record.value)
        except (msgspec.MsgspecError, UnicodeError):
            self._note(Lacking((record.key or b"").decode(errors="replace"), WHOLE))
            return None

    def _note(self, track: Lacking) -> None:
        self.lacks[track.what] += 1
        if self._file:
            self._file.write(msgspec.json.encode(track._asdict()).decode() + "\n")

    async def _settle(self, answers: Sequence[TrackTagged]) -> None:
        """Write answers, and publish what Redis holds until what was published is what it holds."""
        published = await self._many.put(answers)
        ours = sum(held.tagged_at == answer.tagged_at for held, answer in zip(published, answers, strict=True))
        self.counts.update({"answered": ours, "answered before": len(answers) - ours})
        ids = [answer.track_id for answer in answers]
        while published:
            await self._publish({one.track_id: encode_event(one) for one in published})
            pairs = zip(published, await self._many.get([one.track_id for one in published]), strict=True)
            published = [held for before, held in pairs if held is not None and held != before]
        # Whoever forgets a track marks it first and then deletes. So what was written is deleted there, or here.
        for track_id, forgotten_at, answer in zip(ids, await self._many.forgotten_at(ids), answers, strict=True):
            if answer.event_time <= forgotten_at:
                await self._take_back(track_id, forgotten_at)

    async def _take_back(self, track_id: str, forgotten_at: int) -> None:
        await self._one.drop(track_id, forgotten_at)
        self.counts["forgotten"] += 1
        while True:
            held = await self._one.get(track_id)
            await self._publish({track_id: encode_event(held) if held else None})
            if await self._one.get(track_id) == held:
                return

    async def _publish(self, values: dict[str, bytes | None]) -> None:
        await asyncio.to_thread(self._send, values)

    def _send(self, values: dict[str, bytes | None]) -> None:
        keys = {f"{self._release_id}:{track_id}".encode(): value for track_id, value in values.items()}
        for delivery in [self._producer.send(self._topic, key=key, value=value) for key, value in keys.items()]:
            delivery.get(DELIVERY_TIMEOUT_S)
