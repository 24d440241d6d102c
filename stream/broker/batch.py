"""A whole fetched batch as one Faust message, which knows the records of it that are done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import faust
from aiokafka.structs import ConsumerRecord
from faust.types import TP
from faust.types.tuples import ConsumerMessage

LOGGER = logging.getLogger("faust.batches")
"""What Faust's classes log that this wing changes."""


class Batch(ConsumerMessage):
    """All records that one fetch brought from a partition, as one Faust message.

    Args:
        tp: the partition.
        records: at least one.
        generation_id: of the consumer group.
        on_done: called when all its records are done.
    """

    def __init__(
        self,
        tp: TP,
        records: Sequence[ConsumerRecord],
        generation_id: int,
        *,
        on_done: Callable[[], object] = lambda: None,
    ) -> None:
        first = records[0]
        super().__init__(
            topic=tp.topic,
            partition=tp.partition,
            offset=first.offset,
            timestamp=first.timestamp / 1000.0,
            timestamp_type=first.timestamp_type,
            headers=[],
            key=None,
            value=None,
            checksum=None,
            tp=tp,
            generation_id=generation_id,
        )
        self.records = records
        """Those that nobody has in hand yet."""
        self.revoked = False
        self._on_done = on_done
        self._end = records[-1].offset + 1
        self._pending = {record.offset: None for record in records}

    def finish(self, records: Iterable[ConsumerRecord]) -> None:
        """Note that records are done: their effects are durable."""
        for record in records:
            self._pending.pop(record.offset, None)
        if self.done:
            self._on_done()

    @property
    def committable(self) -> int:
        """The offset up to which every record is done."""
        return next(iter(self._pending), self._end)

    @property
    def done(self) -> bool:
        """Whether every record is done."""
        return not self._pending


class BatchSchema(faust.Schema):
    """Hands the batch to the stream as it is; Faust would deserialise a key and a value."""

    def loads_key(self, *_: Any, **__: Any) -> None:
        """None: a batch has no key."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        """The batch."""
        return message
