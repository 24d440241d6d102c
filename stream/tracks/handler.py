"""The agent for uploaded tracks: fetch, hear, answer in Redis and on the output topic, or dead-letter."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiokafka.structs import ConsumerRecord

from models.errors import AudioError, EventError, FetchError, ProcessingError, TastewaveError
from models.events import TrackFeatures, TrackTagged, TrackUploaded, decode_event, refuse_future
from stream import metrics, traces
from stream.audio.breaker import HostAway
from stream.audio.machine import lacking
from stream.audio.pool import PoolUnusable, TaggerPool
from stream.broker.publish import Publisher, is_kafka_away
from stream.store.away import is_redis_away
from stream.store.hearings import MOST_KILLED, KilledWorkers
from stream.store.tracks import PublishedFeatures, TrackStore

if TYPE_CHECKING:
    from models.tagging import Tagging
    from stream.audio.fetch import Fetcher

log = structlog.get_logger(__name__)
AGENT = "tracks"


class _TrackId(msgspec.Struct):
    track_id: str


_track_id = msgspec.json.Decoder(_TrackId)


def server_of(error: BaseException) -> str | None:
    """What is away by this error: machine, redis, pool, fetch (a server of audio) or kafka; None where nothing is."""
    if lacking(error):
        return "machine"
    if is_redis_away(error):
        return "redis"
    if isinstance(error, PoolUnusable):
        return "pool"
    if isinstance(error, HostAway):
        return "fetch"
    return "kafka" if is_kafka_away(error) else None


class TrackHandler:
    """Answers one TrackUploaded record at a time; a stream.broker.handlers.RecordHandler.

    A record is done when its answer is in Redis and what Redis holds is on the output topic (and its features are on
    their topic, once for the upload, front end, networks and encoders), or when it is a dead letter; Kafka has
    acknowledged all of it.

    Args:
        release: release_id of the answers.
        front_end: version of the log-mels that the features are computed from.
        networks: those that hear the tracks, each with the hash of its file.
        encoders: the hashes of the audio encoders that hear the tracks.
        fetcher: brings the audio here.
        pool: hears it.
        store: keeps the answers.
        publisher: sends them.
        turn: fetching and hearing waits for it (BatchApp.turn, and Hearings.of, which finds what kills workers).
        top_k: genres and tags kept in an answer.
        future_tolerance_ms: how far ahead of the clock an upload may be dated.
        now_ms: the clock.
    """

    def __init__(
        self,
        *,
        release: str,
        front_end: str,
        networks: Mapping[str, str],
        encoders: Collection[str],
        fetcher: Fetcher,
        pool: TaggerPool,
        store: TrackStore,
        publisher: Publisher,
        turn: Callable[[ConsumerRecord], AbstractAsyncContextManager[None]],
        top_k: int,
        future_tolerance_ms: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._release = release
        self._front_end = front_end
        self._networks = dict(networks)
        self._encoders = tuple(sorted(set(encoders)))
        self._fetcher = fetcher
        self._pool = pool
        self._store = store
        self._publisher = publisher
        self._turn = turn
        self._top_k = top_k
        self._future_tolerance_ms = future_tolerance_ms
        self._now_ms = now_ms

    def order(self, record: ConsumerRecord) -> str | None:
        """Events of one track wait for each other."""
        try:
            return _track_id.decode(record.value or b"").track_id
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None

    def is_away(self, error: BaseException) -> bool:
        """Whether what answers a record is not there now: a server, the pool, or something that the machine lacks."""
        return server_of(error) is not None

    def is_away_for_some(self, error: BaseException) -> bool:
        """Whether a server of audio is away: tracks of other servers go ahead."""
        return isinstance(error, HostAway)

    async def handle(self, record: ConsumerRecord) -> None:
        """Answer a record. Raises what is_away knows; any other error is a fault of this program."""
        try:
            event = self._accept(record)
        except EventError as error:
            await self._publisher.dead_letter(record, error)
            metrics.EVENTS.labels(AGENT, "refused", error.reason).inc()
            traces.failed(error.reason)
            return
        if not await self._is_taken_back(event):
            await self._settle(record, event)
            await self._is_taken_back(event)  # somebody may have had it forgotten meanwhile

    async def _settle(self, record: ConsumerRecord, event: TrackUploaded) -> None:
        """Publish the answer that is held, or find one."""
        held = await self._store.get(event.track_id)
        if held and await self._is_answered(event, held):
            await self._publish(held)
            metrics.EVENTS.labels(AGENT, "cached", "").inc()
            return
        try:
            async with self._turn(record):
                heard, content_hash = await self._hear(event)
            await self._answer(event, heard, content_hash)
        except (FetchError, AudioError, ProcessingError) as error:
            await self._fail(record, event, error, MOST_KILLED if isinstance(error, KilledWorkers) else 1)

    async def give_up(self, record: ConsumerRecord, error: Exception, tries: int) -> None:
        """Dead-letter a record that raised unexpected errors."""
        unforeseen = TastewaveError(f"{type(error).__name__} in each of {tries} tries; see the log of the worker")
        try:
            event = self._accept(record)
        except EventError:
            await self._publisher.dead_letter(record, unforeseen, attempts=tries)
            return
        try:
            await self._fail(record, event, unforeseen, attempts=tries)
            await self._is_taken_back(event)
        except Exception as failure:
            if self.is_away(failure):
                raise
            log.exception("track.failure_not_stored", track_id=event.track_id)
            await self._publisher.dead_letter(record, unforeseen, attempts=tries)

    def _accept(self, record: ConsumerRecord) -> TrackUploaded:
        event = decode_event(record.value, TrackUploaded)
        refuse_future("uploaded_at", event.uploaded_at, now_ms=self._now_ms(), tolerance_ms=self._future_tolerance_ms)
        return event

    async def _hear(self, event: TrackUploaded) -> tuple[Tagging, str]:
        """Fetch and hear a track; returns the hash of its content as well."""
        with _stage("fetch"):
            fetched = await self._fetcher.fetch(event.uri)
        with fetched:
            started = time.monotonic()
            with traces.stage("hear"):
                heard = await self._pool.tag(fetched.file, track_id=event.track_id, artist_id=event.artist_id)
            took_s = time.monotonic() - started
        for stage, took_ms in heard.timings_ms.items():
            metrics.STAGE_SECONDS.labels(stage).observe(took_ms / 1000)
        metrics.STAGE_SECONDS.labels("queue").observe(max(0.0, took_s - sum(heard.timings_ms.values()) / 1000))
        return heard, fetched.content_hash

    async def _answer(self, event: TrackUploaded, heard: Tagging, content_hash: str) -> None:
        answer = TrackTagged(
            track_id=event.track_id,
            release=self._release,
            status=heard.status,
            event_time=event.uploaded_at,
            event_id=event.event_id,
            tagged_at=self._now_ms(),
            genre=heard.genre,
            confidence=heard.confidence,
            genres=heard.genres[: self._top_k],
            genres_from=heard.genres_from,
            tags=heard.tags[: self._top_k],
            embedding=heard.embedding,
            content_hash=content_hash,
            duration_ms=round(heard.duration_s * 1000),
            title=event.title,
            artist_id=event.artist_id,
        )
        with _stage("store"):
            stored = await self._store.put(answer, taggram=heard.taggram)
            await self._publish(stored)
        if _place(stored) == _place(event):  # else a later upload was answered, and its features count
            await self._publish_features(event, heard, content_hash)
        if heard.lost_s:
            metrics.LOST_AUDIO_SECONDS.inc(heard.lost_s)
            log.warning("track.damaged", track_id=event.track_id, lost_s=round(heard.lost_s, 3))
        metrics.EVENT_TO_CACHE_SECONDS.observe(max(0, answer.tagged_at - event.uploaded_at) / 1000)
        metrics.EVENTS.labels(AGENT, heard.status, "").inc()
        if heard.genre is not None:
            metrics.TRACKS_TAGGED.labels(self._release, heard.genre).inc()

    async def _publish_features(self, event: TrackUploaded, heard: Tagging, content_hash: str) -> None:
        """Publish what was heard unless the topic holds it already, and note that this was done for the event."""
        due = PublishedFeatures(
            event_time=event.uploaded_at,
            event_id=event.event_id,
            content=f"{self._front_end}:{content_hash}",
            networks=self._networks,
            encoders=self._encoders,
        )
        async with self._store.features_lock(event.track_id):
            published = await self._store.published_features(event.track_id)
            if published and published.event > due.event:  # by the workers of another release, which are ahead
                return
            same = published and (published.event, published.content) == (due.event, due.content)
            if published and same and published.heard_by(due.networks, due.encoders):
                return
            features = TrackFeatures(
                track_id=event.track_id,
                front_end=self._front_end,
                content_hash=content_hash,
                networks=self._networks,
                windows=heard.windows,
                vectors=heard.vectors,
                event_time=event.uploaded_at,
                event_id=event.event_id,
                title=event.title,
                artist_id=event.artist_id,
                duration_ms=round(heard.duration_s * 1000),
            )
            await self._publisher.features(features)
            await self._store.mark_features(event.track_id, due)

    async def _fail(
        self, record: ConsumerRecord, event: TrackUploaded, error: TastewaveError, attempts: int = 1
    ) -> None:
        answer = TrackTagged(
            track_id=event.track_id,
            release=self._release,
            status="failed",
            event_time=event.uploaded_at,
            event_id=event.event_id,
            tagged_at=self._now_ms(),
            reason=error.reason,
            title=event.title,
            artist_id=event.artist_id,
        )
        with _stage("store"):
            await self._publish(await self._store.put(answer))
        await self._publisher.dead_letter(record, error, attempts=attempts)
        metrics.EVENTS.labels(AGENT, "failed", error.reason).inc()
        traces.failed(error.reason)
        log.warning("track.failed", track_id=event.track_id, reason=error.reason, error=str(error))

    async def _publish(self, answer: TrackTagged) -> None:
        """Publish until what was published is what Redis holds: another worker may have written in between."""
        while True:
            await self._publisher.tagged(answer)
            held = await self._store.get(answer.track_id)
            if held is None or held == answer:
                return
            answer = held

    async def _is_taken_back(self, event: TrackUploaded) -> bool:
        """Whether the track was forgotten since its upload; then nothing that was written or published of it stays.

        Whoever forgets a track marks it first and then deletes. So what is written before this look is either deleted
        there, or here.
        """
        forgotten_at = await self._store.forgotten_at(event.track_id)
        if event.uploaded_at > forgotten_at:
            return False
        await self._store.drop(event.track_id, forgotten_at)
        async with self._store.features_lock(event.track_id):
            published = await self._store.published_features(event.track_id)
            if later := await self._store.get(event.track_id):
                await self._publish(later)
            else:
                features = published is None or published.event_time <= forgotten_at
                if features:
                    await self._store.unmark_features(event.track_id)
                await self._publisher.take_back(event.track_id, features=features)
        metrics.EVENTS.labels(AGENT, "forgotten", "").inc()
        return True

    async def _is_answered(self, event: TrackUploaded, held: TrackTagged) -> bool:
        """Whether this upload or a later one was answered, and the features of the answer were published.

        A worker that was killed between the two has left the answer to this upload without its features.
        """
        if held.failed or _place(held) < _place(event):
            return False
        if _place(held) > _place(event):
            return True
        published = await self._store.published_features(event.track_id)
        if published is None or published.event < _place(event):
            return False
        return published.event > _place(event) or published.heard_by(self._networks, self._encoders)


def _place(of: TrackUploaded | TrackTagged) -> tuple[int, str]:
    """The place of an upload, or of the one that was answered, among those of its track: the greatest stands."""
    return (of.uploaded_at if isinstance(of, TrackUploaded) else of.event_time), of.event_id


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.monotonic()
    with traces.stage(name):
        yield
    metrics.STAGE_SECONDS.labels(name).observe(time.monotonic() - started)
