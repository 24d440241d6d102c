"""The newest dead letters in memory, and the one redrive that may run: what the routes of dead letters stand on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import NamedTuple

import msgspec
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from models.contract import DEAD_LETTER
from models.errors import TastewaveError
from stream.broker.dead_letters import DeadLetter, read_dead_letter
from stream.broker.operator import kafka_client, partitions_of, records_between
from stream.broker.redrive import Choice, Redriven, redrive
from stream.serve.problems import AlreadyRunning, RedriveStopped
from stream.settings import Settings

NEWEST = 200
"""The most letters of a partition that are held."""
EVENTS_A_SECOND = 100.0
_FRESH_S = 2.0
_KEPT_RUNS = 50
_MOST_KEY_BYTES = 256


class _Ids(msgspec.Struct):
    track_id: str | None = None
    user_id: str | None = None


class Held(NamedTuple):
    """A letter without the bytes of its event, and the ids that these name.

    Attributes:
        place: time, partition and offset of the letter: the greatest is the newest.
    """

    place: tuple[int, int, int]
    letter: DeadLetter
    track_id: str | None
    user_id: str | None


class Letters:
    """The newest letters of each partition. They are read when they are asked for, and then only those that are new.

    Args:
        settings: how to reach Kafka, and how topics are named.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topics.named(DEAD_LETTER)
        self._held: dict[TopicPartition, dict[int, Held]] = {}
        self._next: dict[TopicPartition, int] = {}
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._newest_first: list[Held] = []
        self._are_all = True

    async def newest_first(self) -> tuple[list[Held], bool]:
        """The letters, as of two seconds ago at most, and whether they are all of the topic. Raises KafkaUnusable."""
        async with self._reading:
            if time.monotonic() - self._read_at > _FRESH_S:
                await asyncio.to_thread(self._read)
                self._read_at = time.monotonic()
            return self._newest_first, self._are_all

    def _read(self) -> None:
        with kafka_client(
            KafkaConsumer,
            self._settings.kafka,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            auto_offset_reset="earliest",
        ) as consumer:
            places = partitions_of(consumer, self._topic)
            begins, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
            if any(self._next.get(place, 0) > end for place, end in ends.items()):  # the topic was made anew
                self._held, self._next = {}, {}
            starts = {place: max(begins[place], ends[place] - NEWEST, self._next.get(place, 0)) for place in places}
            for record in records_between(consumer, starts, ends):
                of_partition = self._held.setdefault(TopicPartition(record.topic, record.partition), {})
                of_partition[record.offset] = _held(read_dead_letter(record), record.partition, record.offset)
            self._next = dict(ends)
        for place, held in self._held.items():
            for offset in [one for one in held if one < max(begins[place], ends[place] - NEWEST)]:
                del held[offset]
        self._are_all = all(ends[place] - begins[place] <= NEWEST for place in places)
        self._newest_first = sorted(
            (one for held in self._held.values() for one in held.values()), key=lambda one: one.place, reverse=True
        )


def _held(letter: DeadLetter, partition: int, offset: int) -> Held:
    ids = _Ids()
    if letter.value:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):  # why it is a letter, maybe
            ids = msgspec.json.decode(letter.value, type=_Ids)
    key = letter.key and letter.key[:_MOST_KEY_BYTES]
    without_bytes = msgspec.structs.replace(letter, key=key, value=None, headers=())
    return Held((letter.time, partition, offset), without_bytes, ids.track_id, ids.user_id)


class Run(msgspec.Struct, kw_only=True):
    """A redrive that this process has begun.

    Attributes:
        by: who asked for it.
        at: when it began, ms.
        read: letters that were read so far.
        of: letters that there were when it began.
    """

    by: str
    at: int
    read: int = 0
    of: int = 0


class Redrives:
    """Runs redrives in a thread, one at a time. They go on when whoever asked for them has left.

    Args:
        settings: how to reach Kafka, and how topics are named.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: asyncio.Task[Redriven] | None = None
        self._run: Run | None = None
        self._ended: deque[tuple[Choice, Run]] = deque(maxlen=_KEPT_RUNS)
        self._is_stopping = False

    @property
    def running(self) -> Run | None:
        """The one that runs now."""
        return self._run if self._running and not self._running.done() else None

    async def run(self, choice: Choice, *, by: str) -> Redriven:
        """Redrive, as stream.broker.redrive does. Raises AlreadyRunning, and what that raises."""
        if (running := self.running) is not None:
            raise AlreadyRunning(
                f"a redrive by {running.by} has read {running.read} of {running.of} letters; try again later"
            )
        self._run = run = Run(by=by, at=time.time_ns() // 1_000_000)
        self._running = asyncio.create_task(self._keep(choice, run))
        return await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Have the one that runs end at its next letter, and wait for that."""
        self._is_stopping = True
        if self._running:
            with contextlib.suppress(TastewaveError):
                await self._running

    def of(self, letter: DeadLetter) -> Run | None:
        """The last redrive of this process that has sent a letter's event again."""
        if letter.truncated:
            return None
        return next(
            (run for choice, run in reversed(self._ended) if letter.time <= run.at and choice.takes(letter)), None
        )

    async def _keep(self, choice: Choice, run: Run) -> Redriven:
        redriven = await asyncio.to_thread(self._redrive, choice, run)
        self._ended.append((choice, run))
        return redriven

    def _redrive(self, choice: Choice, run: Run) -> Redriven:
        def note(read: int, of: int) -> None:
            run.read, run.of = read, of
            if self._is_stopping:
                raise RedriveStopped("the process of the API ends; run the redrive again")

        return redrive(self._settings, choice, by=run.by, rate=EVENTS_A_SECOND, on_read=note)
