"""From the records of a batch to one change for each user, however many events of the user it has."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from models.errors import EventError
from models.events import Listen, decode_event, refuse_future
from models.history import FEEDBACK_KINDS, HISTORY_KINDS, feedback_member, history_member
from stream.settings import UserSettings
from stream.store.histories import Change

_RECORDS_AT_ONCE = 1000  # some milliseconds; then what else the event loop has to do has its turn


class Changes(NamedTuple):
    """What a batch says.

    Attributes:
        of_user: what is new of each user, and no more than is kept of one.
        refused: the records that are no events of the contract, each with the error that says why.
        excluded: how many listens must not shape anybody's taste.
        outdated: how many listens have no place beside newer ones of the same user in this batch.
    """

    of_user: Mapping[str, Change]
    refused: Sequence[tuple[ConsumerRecord, EventError]]
    excluded: int
    outdated: int


async def read_changes(
    records: Sequence[ConsumerRecord], kept: UserSettings, *, now_ms: int, future_tolerance_ms: int
) -> Changes:
    """Decode, check and group the records of a batch.

    Args:
        records: of the batch.
        kept: how much is kept of a user.
        now_ms: by the clock.
        future_tolerance_ms: how far ahead of it a listen may be.
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
        except EventError as error:
            refused.append((record, error))
            continue
        if listen.excluded:
            excluded += 1
            continue
        if (change := of_user.get(listen.user_id)) is None:
            change = of_user[listen.user_id] = ({}, {})
        if listen.kind in HISTORY_KINDS:
            change[0][history_member(listen)] = listen.at
        if listen.kind in FEEDBACK_KINDS:
            member = feedback_member(listen)
            change[1][member] = max(listen.at, change[1].get(member, 0))
    outdated = sum(max(0, len(history) - kept.history) for history, _ in of_user.values())
    changes = {
        user_id: Change(_newest(history, kept.history), _newest(feedback, kept.feedback))
        for user_id, (history, feedback) in of_user.items()
    }
    return Changes(changes, refused, excluded, outdated)


def _newest(members: dict[bytes, int], count: int) -> dict[bytes, int]:
    """The members that a sorted set of so many keeps."""
    if len(members) <= count:
        return members
    return dict(heapq.nlargest(count, members.items(), key=lambda member: (member[1], member[0])))
