"""The scores of a tower in training: histories of a log to embeddings, and those to scores of all tracks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.user_tower import newest_known
from offline.interactions.log import InteractionLog
from offline.user_tower.data import TrainingData
from offline.user_tower.networks import Items, Tower


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
    scores = np.full((len(embeddings), len(row_of)), -np.inf, np.float32)
    known = row_of >= 0
    scores[:, known] = embeddings @ vectors[row_of[known]].T
    return scores


class NetworkScorer:
    """A tower in training as an offline.ranking.rank.Scorer.

    Args:
        data: what the tower trains on; it scores the listens of this log alone.
        tower: the network.
        items: trained with it.
    """

    name = "tower"

    def __init__(self, data: TrainingData, tower: Tower, items: Items) -> None:
        self.data = data
        self.tower = tower
        with torch.inference_mode():
            self.vectors = items().cpu().numpy()

    def embed(self, users: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, dim) embeddings of the histories of users (n,) that end at positions (n,)."""
        data, history = self.data, self.data.settings.history
        rows, signals, ages_s, _ = newest_known(*histories(data.log, data.row_of, users, ends, history=history),
                                                history=history)  # fmt: skip
        vectors = self.vectors[rows] * (signals > 0)[..., None]
        with torch.inference_mode():
            inputs = (torch.from_numpy(array).to(data.device) for array in (vectors, signals, ages_s))
            return self.tower(*inputs).cpu().numpy()

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.float32]:  # noqa: ARG002
        """(n, tracks) as Scorer says; the log is that of the training."""
        return catalogue_scores(self.embed(users, ends), self.vectors, self.data.row_of)
