"""From what Redis holds of users to their embeddings: the one way in which the stream and the offline jobs do it.

refreshed = refresh(tower, [StoredHistory(members, feedback), ...])
refreshed.embeddings[0], refreshed.listens[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.history import IS_USABLE, StoredHistory, read_histories
from models.user_tower import UserTower


class Refreshed(NamedTuple):
    """Users in taste space.

    Attributes:
        embeddings: (users, dim) float32, unit norm.
        of_history: (users,) bool: from a history; else it is the global embedding.
        listens: (users,) int64, the listens that count.
        event_time: (users,) int64 ms of the newest event, taken back or not; 0 without one.
    """

    embeddings: NDArray[np.float32]
    of_history: NDArray[np.bool_]
    listens: NDArray[np.int64]
    event_time: NDArray[np.int64]


def refresh(tower: UserTower, stored: Sequence[StoredHistory]) -> Refreshed:
    """Embed users.

    Args:
        tower: of the release.
        stored: what Redis holds of each user.
    """
    histories = read_histories(stored)
    counting, length = tower.manifest.counting, tower.manifest.history
    signals = counting.signals(histories.kind, histories.played_ms, histories.duration_ms)
    rows = tower.items.rows(track_id.decode() for track_id in histories.track_ids)
    says = signals > 0
    users = len(stored)
    user = np.repeat(np.arange(users), np.diff(histories.offsets))[says]
    listens = np.bincount(user, minlength=users)
    ends = np.cumsum(listens)
    place = np.arange(len(user)) - ends[user] + length  # the newest listen of each user at length - 1
    kept = place >= 0

    def padded(values: NDArray[Any], empty: int) -> NDArray[np.int64]:
        array = np.full((users, length), empty, np.int64)
        array[user[kept], place[kept]] = values[says][kept]
        return array

    rows, signals, at = padded(rows, -1), padded(signals, 0), padded(histories.at, 0)
    event_time = [
        max((int.from_bytes(one.members[-1][:6], "big") if one.members else 0, *(time for _, time in one.feedback)))
        for one in stored
    ]
    return Refreshed(
        embeddings=tower.embed(rows, signals, at),
        of_history=np.any(IS_USABLE[signals] & (rows >= 0), axis=1),
        listens=listens,
        event_time=np.array(event_time, np.int64),
    )
