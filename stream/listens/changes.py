"""From the records of a batch to one change for each user, however many events of the user it has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from models.errors import EventError
from models.events import Listen, decode_event, refuse_future
from models.history import FEEDBACK_KINDS, HISTORY_KINDS, feedback_member, history_member
from stream.store.histories import Change, check_id

_OF_HISTORY, _OF_FEEDBACK = frozenset(HISTORY_KINDS), frozenset(FEEDBACK_KINDS)
_RECORDS_AT_ONCE = 1000  # some milliseconds; then what else the event loop has to do has its turn


class Changes(NamedTuple):
    """What a batch says.

    Attributes:
        of_user: what is new of each user.
        refused: the records that are no events of the contract, each with the error that says why.
        excluded: how many listens must not shape anybody's taste.
    """

    of_user: Mapping[str, Change]
    refused: Sequence[tuple[ConsumerRecord, EventError]]
    excluded: int


async def read_changes(
    records: Sequence[ConsumerRecord], *, now_ms: int, future_tolerance_ms: int, cluster: bool
) -> Changes:
    """Decode, check and group the records of a batch.

    Args:
        records: of the batch.
        now_ms: by the clock.
        future_tolerance_ms: how far ahead of it a listen may be.
        cluster: whether Redis is a Cluster, which cannot keep every user.
    """
    of_user = dict[str, tuple[dict[bytes, int], dict[bytes, int]]]()
    refused = list[tuple[ConsumerRecord, EventError]]()
    excluded = 0
    for number, record in enumerate(records):
        if number % _RECORDS_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            listen = decode_event(record.value, Listen)
            refuse_future("at", listen.at, now_ms=now_ms, tolerance_ms=future_tolerance_ms)
            if cluster:
                check_id(listen.user_id)
        except EventError as error:
            refused.append((record, error))
            continue
        if listen.excluded:
            excluded += 1
            continue
        if (change := of_user.get(listen.user_id)) is None:
            change = of_user[listen.user_id] = ({}, {})
        if listen.kind in _OF_HISTORY:
            change[0][history_member(listen)] = listen.at
        if listen.kind in _OF_FEEDBACK:
            member = feedback_member(listen)
            change[1][member] = max(listen.at, change[1].get(member, 0))
    return Changes({user_id: Change(*change) for user_id, change in of_user.items()}, refused, excluded)
