"""What an audio encoder minimises. R is the cosine of a person and a track; both have unit norm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def hinge(people: Tensor, liked: Tensor, disliked: Tensor, counts: Tensor, *, margin: float) -> Tensor:
    """The mean of max(0, margin - R+ + R-) over the pairs that count (Chen & Liang, ISMIR 2020 LBD, eq. 1 and 2).

    Args:
        people: (n, dim).
        liked: (n, dim).
        disliked: (n, negatives, dim).
        counts: (n, negatives) bool.
        margin: in cosine.
    """
    apart = (people * liked).sum(dim=1)[:, None] - (people[:, None] * disliked).sum(dim=2)
    return (functional.relu(margin - apart) * counts).sum() / counts.sum().clamp(min=1)


def infonce(people: Tensor, tracks: Tensor, liked: Tensor, counts: Tensor, *, temperature: float) -> Tensor:
    """The mean cross-entropy of the liked track among the tracks of the batch (van den Oord et al. 2018).

    Args:
        people: (n, dim).
        tracks: (tracks, dim), all of the batch.
        liked: (n,) places in them.
        counts: (n, tracks) bool: what may be a negative; the liked one counts always.
        temperature: what cosines are divided by.
    """
    counts = counts.clone()
    counts[torch.arange(len(liked)), liked] = True
    return functional.cross_entropy((people @ tracks.T / temperature).masked_fill(~counts, -torch.inf), liked)
