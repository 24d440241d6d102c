"""Windows of listening histories, which a user tower trains on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from models.history import IS_TARGET
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split


class Windows(NamedTuple):
    """Windows of a step: the listens of one user each, oldest first, padded at the end.

    Attributes:
        rows: (windows, length) int64 places in the item table; 0 in the padding.
        signals: (windows, length) int64; 0 in the padding.
        ages_s: (windows, length) float64 to the last listen of the window; 0 in the padding.
        trains: (windows, length) bool, True where the next listen is to be foreseen.
        targets: (positions,) rows of these next listens.
    """

    rows: NDArray[np.int64]
    signals: NDArray[np.int64]
    ages_s: NDArray[np.float64]
    trains: NDArray[np.bool_]
    targets: NDArray[np.int64]


def windows(
    log: InteractionLog,
    split: Split,
    row_of: NDArray[np.int64],
    *,
    context: int,
    stride: int,
    batch: int,
    seed: int,
    done: int = 0,
) -> Iterator[Windows]:
    """Steps without end, epoch after epoch; in each epoch every position of the training part trains once.

    A user's listens are cut at random places; before its first position that trains, a window has `context` listens
    where there are as many. Windows of a step are about equally long.

    Args:
        log: the log.
        split: of it.
        row_of: (tracks,) places in the item table.
        context: listens of a window before those that train.
        stride: positions of a window that train.
        batch: windows of a step.
        seed: of the cuts and the order.
        done: steps that are left out at the beginning.

    Raises:
        SettingsError: there is nothing to foresee in the training part.
    """
    targets = np.cumsum(IS_TARGET[log.signal])
    for epoch in range(2**31):
        rng = np.random.default_rng([seed, epoch])
        first, start, end = _cut(log, split, context=context, stride=stride, rng=rng)
        tells = targets[end] > targets[start]
        first, start, end = first[tells], start[tells], end[tells]
        if not len(first):
            raise SettingsError(f"in the training part of {log.where} no target follows a listen; take a longer log")
        order = np.argsort((end - first) + rng.random(len(first)), kind="stable")
        steps = [order[place : place + batch] for place in range(0, len(order), batch)]
        for step in rng.permutation(len(steps))[done:]:
            chosen = steps[step]
            yield _step(log, row_of, first[chosen], start[chosen], end[chosen])
        done = max(0, done - len(steps))


def _cut(
    log: InteractionLog, split: Split, *, context: int, stride: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], ...]:
    """Of each window the first listen, the first that trains, and the end of those that train."""
    begin, last = log.offsets[:-1], split.train_end - 1  # the last listen has nothing to foresee
    users = np.flatnonzero(last > begin)
    begin, last = begin[users], last[users]
    whole = context + stride  # the first window trains all of its positions
    cut = np.where(last - begin > whole, context + rng.integers(1, stride + 1, len(users)), whole)
    more = np.maximum(0, -(-(last - begin - cut) // stride))
    user = np.repeat(np.arange(len(users)), more + 1)
    number = np.arange(len(user)) - np.repeat(np.cumsum(more + 1) - (more + 1), more + 1)
    start = np.where(number == 0, begin[user], begin[user] + cut[user] + (number - 1) * stride)
    end = np.minimum(begin[user] + cut[user] + number * stride, last[user])
    return np.maximum(start - context, begin[user]), start, end


def _step(
    log: InteractionLog,
    row_of: NDArray[np.int64],
    first: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> Windows:
    places = first[:, None] + np.arange((end - first).max())
    inside = places < end[:, None]
    places = np.where(inside, places, end[:, None] - 1)
    at = log.at[places]
    trains = inside & (places >= start[:, None]) & IS_TARGET[log.signal[places + 1]]
    return Windows(
        rows=np.where(inside, row_of[log.track[places]], 0),
        signals=np.where(inside, log.signal[places], 0).astype(np.int64),
        ages_s=np.where(inside, (at[:, -1:] - at) / 1000.0, 0.0),
        trains=trains,
        targets=row_of[log.track[places[trains] + 1]],
    )
