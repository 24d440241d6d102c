"""Interaction logs and splits written by hand."""

import numpy as np
import polars as pl

from models.history import IS_TARGET, Signal
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split


def log_of(histories, *, tracks: int, signals=None, times=None) -> InteractionLog:
    """A log of lists of track numbers, one list for each user.

    signals and times (ms) are lists of the same shape: plays, one a minute, when absent.
    """
    lengths = [len(history) for history in histories]
    flat = [track for history in histories for track in history]
    codes = [code for of_user in signals for code in of_user] if signals else [Signal.PLAY] * len(flat)
    at = [moment for of_user in times for moment in of_user] if times else [
        60_000 * place for length in lengths for place in range(length)
    ]  # fmt: skip
    return InteractionLog(
        where="by hand",
        users=pl.Series([f"user-{number:04}" for number in range(len(histories))], dtype=pl.String),
        tracks=pl.Series([f"track-{number:04}" for number in range(tracks)], dtype=pl.String),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        track=np.array(flat, np.int32),
        at=np.array(at, np.int64),
        signal=np.array(codes, np.uint8),
        rows=len(flat),
        duplicates=0,
        excluded=0,
        forgotten=0,
        taken_back=0,
        fingerprint="0123456789ab",
    )


def split_of(log: InteractionLog, *, learned, valid: int = 1) -> Split:
    """The first learned[u] events of user u are for training, the next `valid` targets for validation."""
    train_end = log.offsets[:-1] + np.asarray(learned)
    later = [
        [position for position in range(start, end) if IS_TARGET[log.signal[position]]]
        for start, end in zip(train_end, log.offsets[1:], strict=True)
    ]
    return Split(
        name="leave-last",
        train_end=train_end.astype(np.int64),
        valid=np.array([position for of_user in later for position in of_user[:valid]], np.int64),
        test=np.array([position for of_user in later for position in of_user[valid:]], np.int64),
    )
