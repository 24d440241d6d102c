"""The order in which a training sees the listens of its log: that of the histories, and any order within a moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline.interactions.log import InteractionLog, spans
from offline.interactions.splits import Split
from offline.ranking.examples import chunks


def training_order(
    log: InteractionLog, split: Split, row_of: NDArray[np.int64], *, rng: np.random.Generator
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """The listens of the training part to tracks with a vector, user after user, the oldest first.

    Listens of one user at one moment come in an order that is drawn. In the log their ids put them in order, and a
    model that is trained on that order learns how ids follow one another.

    Args:
        log: the log.
        split: of it.
        row_of: (tracks,) places in the item table, -1 where a track has none.
        rng: draws the order.

    Returns:
        (listens,) positions in the log, and (users + 1,) where those of each user begin.
    """
    kind = np.min_scalar_type(-len(log.track))  # half the memory of int64, for all logs below two billion listens
    starts, ends = log.offsets[:-1], split.train_end
    parts: list[NDArray[np.integer]] = [np.empty(0, kind)]
    counts = np.zeros(len(log.users), np.int64)
    for users in chunks(ends - starts):
        user, positions = spans(starts[users], ends[users])
        learned = row_of[log.track[positions]] >= 0
        user, positions = user[learned], positions[learned]
        at = log.at[positions]
        begins = np.ones(len(at), bool)
        begins[1:] = (at[1:] != at[:-1]) | (user[1:] != user[:-1])
        drawn = np.argsort(np.cumsum(begins) + rng.random(len(at)))
        parts.append(positions[drawn].astype(kind))
        counts[users] = np.bincount(user, minlength=users.stop - users.start)
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(counts)])
