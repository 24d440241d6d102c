"""From what Redis holds of users to their embeddings: the one way in which the stream and the offline jobs do it.

refreshed = refresh(tower, [StoredHistory(members, feedback), ...])
refreshed.embeddings[0], refreshed.listens[0]

Where tracks that the tower does not know have an embedding of their audio, it is two steps:

newest = read_newest(tower, stored)
refreshed = embed_newest(tower, newest, {track_id: embedding of track_id for track_id in newest.unknown})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.history import IS_USABLE, StoredHistory, read_histories
from models.user_tower import UserTower


class Newest(NamedTuple):
    """The newest listens of users that say something, as many as the tower reads, and the newest at the end.

    Attributes:
        rows: (users, history) places in the tower's item table; behind its end, places in `unknown`. -1 where a user
            has fewer listens.
        signals: (users, history) codes of models.history.Signal; 0 where a user has fewer listens.
        at_ms: (users, history).
        unknown: ids of tracks that the tower does not know, in UTF-8.
        listens: (users,) all the listens that say something.
        event_time: (users,) ms of the newest event, taken back or not; 0 without one.
    """

    rows: NDArray[np.int64]
    signals: NDArray[np.int64]
    at_ms: NDArray[np.int64]
    unknown: list[bytes]
    listens: NDArray[np.int64]
    event_time: NDArray[np.int64]


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
    """Embed users by the listens of tracks that the tower knows.

    Args:
        tower: of the release.
        stored: what Redis holds of each user.
    """
    return embed_newest(tower, read_newest(tower, stored), {})


def read_newest(tower: UserTower, stored: Sequence[StoredHistory]) -> Newest:
    """The listens by which a tower embeds users.

    Args:
        tower: of the release.
        stored: what Redis holds of each user.
    """
    histories = read_histories(stored)
    manifest, users = tower.manifest, len(stored)
    all_signals = manifest.counting.signals(histories.kind, histories.played_ms, histories.duration_ms)
    says: NDArray[np.int64] = np.flatnonzero(all_signals)
    user = np.repeat(np.arange(users), np.diff(histories.offsets))[says]
    listens = np.bincount(user, minlength=users)
    place = np.arange(len(user)) - np.cumsum(listens)[user] + manifest.history  # a user's newest at history - 1
    kept = place >= 0
    places, newest = (user[kept], place[kept]), says[kept]
    numbers: list[int] = newest.tolist()
    rows, unknown = _rows(tower, list(map(histories.track_ids.__getitem__, numbers)))

    def padded(values: NDArray[np.generic], empty: int) -> NDArray[np.int64]:
        array = np.full((users, manifest.history), empty, np.int64)
        array[places] = values
        return array

    return Newest(
        rows=padded(rows, -1),
        signals=padded(all_signals[newest], 0),
        at_ms=padded(histories.at[newest], 0),
        unknown=unknown,
        listens=listens,
        event_time=histories.event_time,
    )


def embed_newest(tower: UserTower, newest: Newest, of_unknown: Mapping[bytes, NDArray[np.float32]]) -> Refreshed:
    """Embed users.

    Args:
        tower: of the release.
        newest: of the users.
        of_unknown: (dim,) of unit norm, for tracks that the tower does not know, by their id. A listen of a track
            without one does not count, as if the user had a shorter history.
    """
    items = len(tower.items)
    found = [number for number, track_id in enumerate(newest.unknown) if track_id in of_unknown]
    row_of = np.full(len(newest.unknown), -1, np.int64)
    row_of[found] = items + np.arange(len(found))
    rows, behind = newest.rows.copy(), newest.rows >= items
    rows[behind] = row_of[rows[behind] - items]
    more = np.array([of_unknown[newest.unknown[number]] for number in found], np.float32)
    return Refreshed(
        embeddings=tower.embed(rows, newest.signals, newest.at_ms, more=more if found else None),
        of_history=np.any(IS_USABLE[newest.signals] & (rows >= 0), axis=1),
        listens=newest.listens,
        event_time=newest.event_time,
    )


def _rows(tower: UserTower, track_ids: Sequence[bytes]) -> tuple[NDArray[np.int64], list[bytes]]:
    """Newest.rows and Newest.unknown of tracks."""
    rows = tower.items.rows_of(track_ids)
    outside = np.flatnonzero(rows < 0)
    unknown: dict[bytes, int] = {}
    for number in outside.tolist():
        rows[number] = len(tower.items) + unknown.setdefault(track_ids[number], len(unknown))
    return rows, list(unknown)
