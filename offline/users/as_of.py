"""What Redis held of users at given moments, from all listens of a log.

At a moment it held the newest N listens and the newest C of what was said of tracks, of the events up to then. All
moments of a range of users are worked on together: a history is a slice of the user's listens in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.history import (
    FEEDBACK_KINDS,
    HISTORY_KINDS,
    KINDS,
    LONGEST_MS,
    StoredHistory,
    feedback_members,
    history_members,
)

_IN_HISTORY = np.isin(np.arange(len(KINDS)), [KINDS.index(kind) for kind in HISTORY_KINDS])
_IN_FEEDBACK = np.isin(np.arange(len(KINDS)), [KINDS.index(kind) for kind in FEEDBACK_KINDS])


def stored_as_of(
    rows: NDArray[Any], moments: NDArray[Any], tracks: pl.Series, *, history: int, feedback: int
) -> Iterator[StoredHistory]:
    """What Redis held of a user at each moment, as models.history.NewestEvents gives it.

    Where a log does not tell how much was played, a play counts as heard, as in training.

    Args:
        rows: (n,) as SortedRows.parts gives them.
        moments: (m,) with the fields user and at, sorted by them.
        tracks: ids, in which rows["track"] are places.
        history: how many members of tw:history:{user} are kept.
        feedback: likewise of tw:feedback:{user}.
    """
    listens = rows[_IN_HISTORY[rows["kind"]]]
    said = rows[_IN_FEEDBACK[rows["kind"]]]
    said = said[np.lexsort([said[name] for name in ("track", "kind", "at", "user")])]  # the order of feedback members
    first, last = _up_to(listens, moments)
    first = np.maximum(first, last - history)
    needed = _covered(first, last, len(listens))
    members, before = _members(listens[needed], tracks), np.concatenate([[0], np.cumsum(needed)])
    spans = zip(before[first].tolist(), before[last].tolist(), strict=True)
    said_then = _said(said, moments, tracks, most=feedback)
    for (start, end), newest in zip(spans, said_then, strict=True):
        yield StoredHistory(members[start:end], newest)


def _up_to(rows: NDArray[Any], moments: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each moment, the places in the rows of its user's first event, and after the last one up to then."""
    times = np.unique(rows["at"])
    apart = len(times) + 1
    of_rows = rows["user"].astype(np.int64) * apart + np.searchsorted(times, rows["at"])
    users = moments["user"].astype(np.int64) * apart
    ends = users + np.searchsorted(times, moments["at"], side="right")
    return np.searchsorted(of_rows, users), np.searchsorted(of_rows, ends)


def _covered(first: NDArray[np.int64], last: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """(length,) whether a place lies in one of the spans."""
    steps = np.bincount(first, minlength=length + 1) - np.bincount(last, minlength=length + 1)
    return np.cumsum(steps)[:length] > 0


def _members(rows: NDArray[Any], tracks: pl.Series) -> list[bytes]:
    played, duration = rows["played"], rows["duration"]
    heard = np.where(played < 0, LONGEST_MS, played)
    return history_members(rows["at"], rows["kind"], heard, np.maximum(duration, 0), _track_ids(rows, tracks))


def _track_ids(rows: NDArray[Any], tracks: pl.Series) -> list[bytes]:
    return tracks.gather(rows["track"]).cast(pl.Binary).to_list()


def _said(
    said: NDArray[Any], moments: NDArray[Any], tracks: pl.Series, *, most: int
) -> Iterator[Sequence[tuple[bytes, int]]]:
    """The newest members of the feedback of each moment with their scores, oldest first."""
    members = feedback_members(said["at"], said["kind"], _track_ids(said, tracks))
    statements = list(zip(said["kind"].tolist(), said["track"].tolist(), strict=True))
    first, last = (places.tolist() for places in _up_to(said, moments))
    held, user, reached = dict[tuple[int, int], tuple[bytes, int]](), -1, 0
    for of_user, start, end in zip(moments["user"].tolist(), first, last, strict=True):
        if of_user != user:
            held, user, reached = {}, of_user, start
        for place in range(reached, end):
            held.pop(statements[place], None)  # so that the newest stands at the end
            held[statements[place]] = members[place]
        reached = end
        yield list(islice(reversed(held.values()), most))[::-1]
