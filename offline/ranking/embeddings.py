"""Histories of a log as towers take them, and the scores that embeddings give to all of its tracks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline.interactions.log import InteractionLog


def histories(
    log: InteractionLog,
    row_of: NDArray[np.int64],
    users: NDArray[np.integer],
    ends: NDArray[np.int64],
    *,
    history: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """What a tower is given for the histories of users (n,) that end at positions (n,) of the log.

    Returns:
        Rows (row_of of each track), signals and times (ms) of the newest listens, (n, history) each, newest last.
        Where a history is shorter, rows are -1, and signals and times 0.
    """
    places = ends[:, None] + np.arange(-history, 0)
    inside = places >= log.offsets[users][:, None]
    places = np.maximum(places, 0)
    return (
        np.where(inside, row_of[log.track[places]], -1),
        np.where(inside, log.signal[places], 0).astype(np.int64),
        np.where(inside, log.at[places], 0),
    )


def catalogue_scores(
    embeddings: NDArray[np.float32], vectors: NDArray[np.float32], row_of: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(n, tracks of a log) dot products of (n, dim) with (items, dim); -inf where row_of says -1: no such item."""
    scores = np.take(embeddings @ vectors.T, row_of, axis=1)
    scores[:, row_of < 0] = -np.inf
    return scores
