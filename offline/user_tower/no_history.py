"""Where a user tower puts people of whom it knows nothing: near the tracks that people listen to first."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.history import IS_TARGET, IS_USABLE
from offline.interactions.log import InteractionLog, spans
from offline.interactions.splits import Split
from offline.ranking.examples import chunks
from offline.user_tower.networks import Items

_ITERATIONS = 30


def first_listens(log: InteractionLog, split: Split, row_of: NDArray[np.int64], *, items: int) -> NDArray[np.float32]:
    """(items,) share of each track in the targets that people had without a usable listen before their moment.

    Args:
        log: the log.
        split: only its training part is looked at.
        row_of: (tracks,) places among the items; -1 of a track that is none.
        items: how many.
    """
    starts, ends, counts = log.offsets[:-1], split.train_end, np.zeros(items)
    for users in chunks(ends - starts):
        user, positions = spans(starts[users], ends[users])
        usable = IS_USABLE[log.signal[positions]]
        user, positions = user[usable], positions[usable]
        at = log.at[positions]
        of_user, place = np.unique(user, return_index=True)
        begins = np.zeros(users.stop - users.start, np.int64)
        begins[of_user] = at[place]
        first = positions[(at == begins[user]) & IS_TARGET[log.signal[positions]]]
        rows = row_of[log.track[first]]
        counts += np.bincount(rows[rows >= 0], minlength=items)
    return (counts / max(1.0, counts.sum())).astype(np.float32)


def fit_no_history(items: Items, shares: Tensor) -> Tensor:
    """(dim,) the vector whose softmax over all tracks comes closest to the shares (cross-entropy, by L-BFGS).

    Args:
        items: as they are trained.
        shares: (items,) of first_listens.
    """
    with torch.no_grad():
        vectors, scale = items(), items.scale
        middle = shares @ vectors
    free = middle.clone().requires_grad_()
    fit = torch.optim.LBFGS([free], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def place() -> Tensor:
        return functional.normalize(free, dim=0) if items.unit_norm else free

    def loss() -> Tensor:
        fit.zero_grad()
        cross_entropy = torch.logsumexp(scale * (vectors @ place()), 0) - scale * (middle @ place())
        cross_entropy.backward()
        return cross_entropy

    with torch.enable_grad():
        fit.step(loss)  # type: ignore[arg-type]
    return place().detach()
