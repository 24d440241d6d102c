"""Whole fetched batches, which know the records of them that are done, on their way through Faust."""

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


class Batch:
    """All records that one fetch brought from a partition.

    Args:
        tp: the partition.
        records: at least one.
        on_done: called when all its records are done.
    """

    def __init__(
        self, tp: TP, records: Sequence[ConsumerRecord], *, on_done: Callable[[], object] = lambda: None
    ) -> None:
        self.tp = tp
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
    def undone(self) -> int:
        """How many records are not done."""
        return len(self._pending)

    @property
    def done(self) -> bool:
        """Whether every record is done."""
        return not self._pending


class Fetch(ConsumerMessage):
    """All batches that one fetch brought from a topic, as one Faust message: Faust takes long for each.

    To Faust it is the first record of the first batch.

    Args:
        batches: at least one.
        generation_id: of the consumer group.
    """

    def __init__(self, batches: Sequence[Batch], generation_id: int) -> None:
        tp, first = batches[0].tp, batches[0].records[0]
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
        self.batches = batches


class FetchSchema(faust.Schema):
    """Hands the fetch to the stream as it is; Faust would deserialise a key and a value."""

    def loads_key(self, *_: Any, **__: Any) -> None:
        """None: a fetch has no key."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        """The fetch."""
        return message
