"""The agent for corrections: the genre that an editor gives a track goes into the answers of all releases."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiokafka.structs import ConsumerRecord

from models.contract import TRACKS_TAGGED
from models.errors import EventError, TastewaveError
from models.events import TrackCorrected, TrackTagged, decode_event, encode_event, refuse_future
from stream import metrics
from stream.broker.publish import Publisher, is_kafka_away
from stream.store.away import is_redis_away
from stream.store.corrections import Corrections

AGENT = "corrections"


class CorrectionHandler:
    """Writes one TrackCorrected record at a time; a stream.broker.handlers.RecordHandler.

    The workers of all releases do so, and each for all releases: a second time changes nothing.

    Args:
        corrections: keeps them.
        publisher: sends the answers.
        future_tolerance_ms: how far ahead of the clock a correction may be dated.
        now_ms: the clock.
    """

    def __init__(
        self,
        *,
        corrections: Corrections,
        publisher: Publisher,
        future_tolerance_ms: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._corrections = corrections
        self._publisher = publisher
        self._future_tolerance_ms = future_tolerance_ms
        self._now_ms = now_ms

    def order(self, record: ConsumerRecord) -> bytes | None:
        """Corrections of one track wait for each other, so that no editor sees them come and go."""
        return record.key

    def is_away(self, error: BaseException) -> bool:
        """Whether Redis or Kafka is not there now."""
        return is_redis_away(error) or is_kafka_away(error)

    def is_away_for_some(self, error: BaseException) -> bool:  # noqa: ARG002
        """Never: all corrections need the same servers."""
        return False

    async def handle(self, record: ConsumerRecord) -> None:
        """Write a correction. Raises what is_away knows; any other error is a fault of this program."""
        if record.value is None:  # the track was forgotten
            return
        try:
            correction = decode_event(record.value, TrackCorrected)
            refuse_future("at", correction.at, now_ms=self._now_ms(), tolerance_ms=self._future_tolerance_ms)
        except EventError as error:
            await self._publisher.dead_letter(record, error)
            metrics.EVENTS.labels(AGENT, "refused", error.reason).inc()
            return
        await self._corrections.correct(correction, publish=self._publish)
        metrics.EVENTS.labels(AGENT, "corrected", "").inc()

    async def give_up(self, record: ConsumerRecord, error: Exception, tries: int) -> None:
        """Dead-letter a record that raised unexpected errors."""
        unforeseen = TastewaveError(f"{type(error).__name__} in each of {tries} tries; see the log of the worker")
        await self._publisher.dead_letter(record, unforeseen, attempts=tries)
        metrics.EVENTS.labels(AGENT, "failed", unforeseen.reason).inc()

    async def _publish(self, release: str, track_id: str, answer: TrackTagged | None) -> None:
        value = encode_event(answer) if answer else None
        await self._publisher.send(TRACKS_TAGGED, f"{release}:{track_id}".encode(), value)
