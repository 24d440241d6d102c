"""The scores of a tower in training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.user_tower import newest_known
from offline.interactions.log import InteractionLog, spans
from offline.ranking.embeddings import catalogue_scores, histories
from offline.ranking.examples import MAX_ROWS, Examples, chunks
from offline.ranking.rank import LIST_LENGTH
from offline.user_tower.data import TrainingData
from offline.user_tower.networks import Items, Tower
from offline.user_tower.no_history import fit_no_history

Int64 = NDArray[np.int64]

_CHUNK_SCORES = 2**26  # 256 MB


class NetworkScorer:
    """A tower in training as an offline.ranking.rank.Scorer, and what a validation makes of it.

    Args:
        data: what the tower trains on; it scores the listens of this log alone.
        tower: the network.
        items: trained with it.
        no_history: (dim,) the embedding of a history without a usable listen; it is fitted when None.

    Attributes:
        no_history: likewise.
    """

    name = "tower"

    def __init__(self, data: TrainingData, tower: Tower, items: Items, *, no_history: Tensor | None = None) -> None:
        self.data = data
        self.tower = tower
        with torch.no_grad():
            self.vectors = items()
        if no_history is None:
            no_history = fit_no_history(items, data.first_listens.to(data.device))
        self.no_history = no_history

    def embed(self, users: NDArray[np.integer], ends: NDArray[np.int64]) -> Tensor:
        """(n, dim) embeddings of the histories of users (n,) that end at positions (n,), on the device."""
        data, history = self.data, self.data.settings.history
        found = newest_known(*histories(data.log, data.row_of, users, ends, history=history), history=history)
        rows, signals, ages_s, usable = (torch.from_numpy(array).to(data.device) for array in found)
        with torch.inference_mode():
            embeddings = self.tower(self.vectors[rows] * (signals > 0)[..., None], signals, ages_s)
            return torch.where(usable[:, None], embeddings, self.no_history)

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.float32]:  # noqa: ARG002
        """(n, tracks) as Scorer says; the log is that of the training."""
        embeddings = self.embed(users, ends).cpu().numpy()
        return catalogue_scores(embeddings, self.vectors.cpu().numpy(), self.data.row_of)

    def ndcg(self, examples: Examples, protocol: str) -> float:
        """NDCG@10 over the examples of a protocol, each process ranking its share of them.

        It is that of offline.ranking.rank.rank, whose lists of tracks a validation does not need: ranks alone are
        counted on the device, without a copy of the item table.
        """
        data, counted = self.data, np.flatnonzero(examples.slices(protocol)["all"])
        starts, total = data.log.offsets[examples.users], 0.0
        known = counted[data.row_of[examples.targets[counted]] >= 0]  # others are missed
        own = known[data.team.rank :: data.team.size]
        rows = min(MAX_ROWS, max(1, _CHUNK_SCORES // len(self.vectors)), max(1, len(own)))
        scores = self.vectors.new_empty(rows, len(self.vectors))  # of all chunks: new memory takes longer than products
        for chunk in chunks(examples.ends[own] - starts[own], rows=rows):
            some = own[chunk]
            seen = spans(starts[some], examples.ends[some]) if protocol == "discovery" else None
            total += float(self._gains(examples, some, seen, scores[: len(some)]).sum())
        return data.team.total(total)[0] / len(counted)

    def _gains(self, examples: Examples, some: Int64, seen: tuple[Int64, Int64] | None, scores: Tensor) -> Tensor:
        """(n,) what each of some examples adds to the sum, without the tracks that are seen: rows and positions.

        The scores (n, items) are overwritten.
        """
        data = self.data
        with torch.inference_mode():
            torch.mm(self.embed(examples.users[some], examples.ends[some]), self.vectors.T, out=scores)
            targets = torch.from_numpy(data.row_of[examples.targets[some]]).to(data.device)
            own = scores.gather(1, targets[:, None])
            if seen is not None:
                rows = data.row_of[data.log.track[seen[1]]]
                cells = (torch.from_numpy(array[rows >= 0]).to(data.device) for array in (seen[0], rows))
                scores[tuple(cells)] = -torch.inf
            ranks = scores.shape[1] - _below(scores, own)
            return torch.where(ranks <= LIST_LENGTH, 1.0 / torch.log2(1.0 + ranks), 0.0)


def _below(scores: Tensor, own: Tensor) -> Tensor:
    """(n,) how many scores (n, items) of each row are below its own (n, 1); numpy counts 15 times faster on a CPU."""
    if not scores.is_cpu:
        return (scores < own).sum(1)
    rows = zip(scores.numpy(), own.numpy(), strict=True)
    return torch.tensor([np.count_nonzero(row < value) for row, value in rows])
