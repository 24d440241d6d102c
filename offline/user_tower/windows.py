"""Windows of listening histories, which a user tower trains on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from models.history import IS_TARGET
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split
from offline.user_tower.order import training_order

Int64 = NDArray[np.int64]


class Windows(NamedTuple):
    """Windows of a step: the listens of one user each, oldest first, padded at the end.

    Attributes:
        rows: (windows, length) int64 places in the item table; 0 in the padding.
        signals: (windows, length) int64; 0 in the padding.
        ages_s: (windows, length) float64 to the last listen of the window; 0 in the padding.
        trains: (windows, length) bool, True where the next listen is to be foreseen.
        targets: (positions,) rows of these next listens.
    """

    rows: Int64
    signals: Int64
    ages_s: NDArray[np.float64]
    trains: NDArray[np.bool_]
    targets: Int64


def windows(
    log: InteractionLog,
    split: Split,
    row_of: Int64,
    *,
    context: int,
    stride: int,
    positions: int,
    seed: int,
    done: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[Windows]:
    """Steps without end, epoch after epoch; in each epoch every position of the training part trains once.

    A user's listens are cut at random places; before its first position that trains, a window has `context` listens
    where there are as many. Windows of a step are about equally long. Of several processes each has its own steps, as
    many as the others: where the steps of an epoch cannot be divided by them, a few that are drawn are left out.

    Args:
        log: the log.
        split: of it.
        row_of: (tracks,) places in the item table, -1 where a track has none.
        context: listens of a window before those that train.
        stride: positions of a window that train.
        positions: of a step that train, about.
        seed: of the order within a moment, of the cuts, and of the order of the steps.
        done: steps that are left out at the beginning.
        rank: which of the processes this is.
        processes: that train together.

    Raises:
        SettingsError: there is nothing to foresee in the training part, or too little for so many processes.
    """
    for epoch in range(2**31):
        rng = np.random.default_rng([seed, epoch])
        order, offsets = training_order(log, split, row_of, rng=rng)
        first, start, end = _cut(offsets, context=context, stride=stride, rng=rng)
        targets = np.cumsum(IS_TARGET[log.signal[order]], dtype=np.int32)
        tells = targets[end] > targets[start]
        first, start, end = first[tells], start[tells], end[tells]
        if not len(first):
            raise SettingsError(f"in the training part of {log.where} no target follows a listen; take a longer log")
        steps = _steps(first, start, end, positions=positions, rng=rng)
        own = rng.permutation(len(steps))[rank::processes][: len(steps) // processes]
        if not len(own):
            raise SettingsError(
                f"an epoch of {log.where} has {len(steps)} steps, too few for {processes} processes; start fewer"
            )
        for step in own[done:]:
            chosen = steps[step]
            yield _step(log, order, row_of, (first[chosen], start[chosen], end[chosen]))
        done = max(0, done - len(own))


def epoch_steps(log: InteractionLog, split: Split, *, positions: int, processes: int = 1) -> int:
    """About how many steps an epoch has for each process: a few less where listeners only skip."""
    trained = np.maximum(0, split.train_end - log.offsets[:-1] - 1).sum()
    return max(1, round(trained / positions) // processes)


def ahead(batches: Iterator[Windows]) -> Generator[Windows, None, None]:
    """The same batches, the next one prepared in a thread while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="windows") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _cut(offsets: Int64, *, context: int, stride: int, rng: np.random.Generator) -> tuple[Int64, Int64, Int64]:
    """Of each window the first listen, the first that trains, and the end of those that train."""
    begin, last = offsets[:-1], offsets[1:] - 1  # the last listen has nothing to foresee
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


def _steps(first: Int64, start: Int64, end: Int64, *, positions: int, rng: np.random.Generator) -> list[Int64]:
    """The windows of each step, about equally long, and together with about as many positions as those of another."""
    order = np.argsort((end - first) + rng.random(len(first)), kind="stable")
    trained = np.cumsum((end - start)[order])
    steps = max(1, round(trained[-1] / positions))
    of_step = (trained - 1) * steps // trained[-1]
    return np.split(order, np.flatnonzero(np.diff(of_step)) + 1)


def _step(log: InteractionLog, order: NDArray[np.integer], row_of: Int64, cut: tuple[Int64, Int64, Int64]) -> Windows:
    first, start, end = cut
    places = first[:, None] + np.arange((end - first).max())
    inside = places < end[:, None]
    places = np.where(inside, places, end[:, None] - 1)
    listens, next_listens = order[places], order[places + 1]
    at = log.at[listens]
    trains = inside & (places >= start[:, None]) & IS_TARGET[log.signal[next_listens]]
    return Windows(
        rows=np.where(inside, row_of[log.track[listens]], 0),
        signals=np.where(inside, log.signal[listens], 0).astype(np.int64),
        ages_s=np.where(inside, (at[:, -1:] - at) / 1000.0, 0.0),
        trains=trains,
        targets=row_of[log.track[next_listens[trains]]],
    )
