"""Splits of an interaction log: which listens train, which choose settings, and which judge.

Every example is a target. Its history is everything that its user did before it, in order and of whatever part
(rolling history). Models are frozen at the end of the training part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from models.history import IS_TARGET
from offline.interactions.log import InteractionLog

SplitName = Literal["temporal", "leave-last"]

_SEED = 0  # of the order of targets at one moment: a log has one leave-last split


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Which listens are for what. Positions are places in the arrays of the log.

    Attributes:
        name: which kind of split.
        train_end: (users,) int64; of user u, offsets[u] to train_end[u] may be learned from.
        valid: (n,) int64 positions of the examples that settings and length of training are chosen by.
        test: (m,) int64 positions of the examples that nothing but the report looks at.
        valid_from_ms, test_from_ms: where these parts begin; None in leave-last, where each user has times of its own.
    """

    name: SplitName
    train_end: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    valid_from_ms: int | None = None
    test_from_ms: int | None = None

    @property
    def text(self) -> str:
        """The split in one sentence."""
        if self.name == "leave-last":
            return (
                "Leave-last: of each user with three targets or more, the last one is judged, the one before it "
                "chooses settings, and everything before its moment is learned from; targets of one moment come in an "
                "order that is drawn; histories roll up to the judged listen."
            )
        return (
            "Global temporal: everything before one moment is learned from, the time after it chooses settings, the "
            "last part is judged; models stay frozen, histories roll up to the judged listen."
        )


def in_training(log: InteractionLog, split: Split) -> NDArray[np.bool_]:
    """(listens,): True where a listen is of the training part, which models learn from."""
    return np.arange(len(log.track)) < np.repeat(split.train_end, np.diff(log.offsets))


def split_log(log: InteractionLog, name: SplitName, *, test_share: float = 0.1) -> Split:
    """Split a log.

    Example:
        split = split_log(log, "temporal", test_share=0.1)
        heard = log.track[in_training(log, split)]

    Args:
        log: the log.
        name: temporal: the last test_share of the log's time is for the test, as much before it for validation.
            leave-last: the last target of each user with at least three, and the one before it. Targets of one moment
            come in an order that is drawn, always the same one of a log: the order of their ids would hold back the
            tracks with the highest ids.
        test_share: of the time.

    Raises:
        SettingsError: nothing is left to learn from, or to validate by, or to judge.
    """
    split = _leave_last(log) if name == "leave-last" else _temporal(log, test_share)
    learned = int((split.train_end - log.offsets[:-1]).sum())
    for part, count in (("learn from", learned), ("validate by", len(split.valid)), ("judge", len(split.test))):
        if not count:
            raise SettingsError(
                f"the {name} split of {log.where} leaves no listen to {part}; "
                + ("take a log of a longer time, or --split leave-last" if name == "temporal" else
                   "leave-last needs users with at least three targets (plays of half a track, likes, playlist_adds)")
            )  # fmt: skip
    return split


def _leave_last(log: InteractionLog) -> Split:
    begins = np.ones(len(log.track), bool)  # of a user's moment, which several listens may share
    begins[1:] = log.at[1:] != log.at[:-1]
    begins[log.offsets[:-1][np.diff(log.offsets) > 0]] = True
    targets = np.flatnonzero(IS_TARGET[log.signal])
    moment = np.cumsum(begins)[targets] - 1
    drawn = np.argsort(moment + np.random.default_rng(_SEED).random(len(targets)))
    first, end = np.searchsorted(targets, log.offsets[:-1]), np.searchsorted(targets, log.offsets[1:])
    judged = end - first >= 3
    valid, test = drawn[end[judged] - 2], drawn[end[judged] - 1]
    train_end = log.offsets[1:].copy()
    train_end[judged] = np.flatnonzero(begins)[moment[valid]]
    return Split(name="leave-last", train_end=train_end, valid=targets[valid], test=targets[test])


def _temporal(log: InteractionLog, test_share: float) -> Split:
    begin, end = int(log.at.min()), int(log.at.max()) + 1
    test_from = end - round((end - begin) * test_share)
    valid_from = end - round((end - begin) * 2 * test_share)
    learned = np.concatenate([[0], np.cumsum(log.at < valid_from)])
    targets = np.flatnonzero(IS_TARGET[log.signal] & (log.at >= valid_from))
    return Split(
        name="temporal",
        train_end=log.offsets[:-1] + learned[log.offsets[1:]] - learned[log.offsets[:-1]],
        valid=targets[log.at[targets] < test_from],
        test=targets[log.at[targets] >= test_from],
        valid_from_ms=valid_from,
        test_from_ms=test_from,
    )
