"""What an agent does with records: the two shapes of handlers.

A RecordHandler gets one record at a time; records of one key wait for each other, all others are handled side by side.
A BatchHandler gets the fetched batches that wait, of one partition or of several, together; batches of one partition
follow each other.

    class Counter:  # a BatchHandler, for app.consume_batches(topic, Counter(...), in_hand=8)

        async def handle_batch(self, records: Sequence[ConsumerRecord]) -> None:
            await self._redis.sadd("seen", *(f"{record.partition}/{record.offset}" for record in records))

        def is_away(self, error: BaseException) -> bool:
            return is_redis_away(error)

        async def give_up(self, record: ConsumerRecord, error: Exception, tries: int) -> None:
            await self._publisher.dead_letter(record, Uncountable(str(error)), attempts=tries)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from aiokafka.structs import ConsumerRecord


class Handler(Protocol):
    """What both shapes of handlers say about errors."""

    def is_away(self, error: BaseException) -> bool:
        """Whether the error says that a server is away; the record then waits for it, however long that takes."""
        ...

    async def give_up(self, record: ConsumerRecord, error: Exception, tries: int) -> None:
        """Leave a record somewhere durable that raised unexpected errors in each of `tries` tries."""
        ...


class RecordHandler(Handler, Protocol):
    """Handles records one at a time. BatchApp.consume takes it."""

    async def handle(self, record: ConsumerRecord) -> None:
        """Return when the effect of the record is durable. It may be called again for the same record."""
        ...

    def order(self, record: ConsumerRecord) -> Hashable | None:
        """Records of one key are handled one after the other, in the order of their offsets; None waits for nobody."""
        ...

    def is_away_for_some(self, error: BaseException) -> bool:
        """Whether the server that is away is one that other records do not need; they then go ahead."""
        ...


class BatchHandler(Handler, Protocol):
    """Handles the records of fetched batches together. BatchApp.consume_batches takes it."""

    async def handle_batch(self, records: Sequence[ConsumerRecord]) -> None:
        """Return when the effect of all records is durable.

        The records are of one or more partitions, those of a partition in the order of their offsets. It may be called
        again for the same records, and for a part of them: where an unexpected error is raised they are halved until
        the error is narrowed down to its record.
        """
        ...


class LeftAlone(BaseException):
    """Raised inside a handler that is draining: the record is left to the next worker.

    It is a BaseException so that nothing takes it for an error of the record.
    """
