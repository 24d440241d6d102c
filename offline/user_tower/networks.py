"""The user tower's networks, in PyTorch.

A history goes in as item vectors, signals and times; a place in taste space comes out: a vector of unit norm whose
dot product with an item's is the score (Covington, Adams & Sargin, Deep Neural Networks for YouTube
Recommendations, RecSys 2016, with cosine instead of dot product). Every position of a history gives an
embedding that knows what is before it alone, so that all of them train at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.history import IS_NEGATIVE, Signal
from offline.user_tower.settings import Pooling

_SIGNALS = len(Signal)
_LAST = 3  # listens that `mean` sees one by one
_DECAYS = (0.70, 0.90, 0.98)
_BLOCKS, _HEADS = 2, 2
_LEAST_WEIGHT = 1e-6
_LONGEST_AGE = 20.0  # log(1 + s) of 15 years: ages are scaled to 0 to 1 by it


Places = tuple[Tensor, ...] | None
"""Rows and columns of positions in windows; None for the last of each row."""


class Tower(nn.Module):
    """Histories to embeddings: a learned mean of the items, and what a network adds to it.

    The network adds nothing at first, so that a tower whose items start as offline.user_tower.start says begins as a
    decayed nearest-neighbour model and goes on from there.

    Args:
        pooling: "mean" or "attention": which network.
        dim: of taste space.
        history: newest listens that count.
        dropout: of the inputs and the layers.
        unit_norm: False leaves the embedding's length free (scores are then plain dot products); only the ladder of
            comparisons does that.
    """

    def __init__(self, pooling: Pooling, *, dim: int, history: int, dropout: float, unit_norm: bool = True) -> None:
        super().__init__()
        self.history = history
        self.unit_norm = unit_norm
        self.views = _Views(history)
        self.view_weights = nn.Parameter(torch.tensor([1 / len(_DECAYS)] * len(_DECAYS) + [0.0] * _LAST))
        self.pool = (_MeanPool if pooling == "mean" else _AttentionPool)(dim, history=history, dropout=dropout)
        self.leave = nn.Linear(self.pool.width, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, vectors: Tensor, signals: Tensor, ages: Tensor, at: Tensor | None = None) -> Tensor:
        """Embeddings of histories, or of positions in windows.

        Args:
            vectors: (n, length, dim) of the items, oldest first; zeros where there is none.
            signals: (n, length) int64; 0 where there is no listen.
            ages: (n, length) float64 seconds from each listen to the last of the window; 0 where there is none.
            at: (n, length) bool positions whose embeddings are wanted; the last of each row when None.

        Returns:
            (positions, dim), of unit norm.
        """
        # A mask is looked through once for all that follows: on a GPU each look waits for the steps before.
        places = None if at is None else at.nonzero(as_tuple=True)
        views = self.views(vectors, signals, places)
        embeddings = self.view_weights @ views + self.leave(self.pool(vectors, views, signals, ages, places))
        return functional.normalize(embeddings, dim=-1) if self.unit_norm else embeddings


def _band(length: int, history: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(length, length) int64 how far position j is before i, 0 to history - 1, and whether j is in i's history."""
    steps = torch.arange(length, device=device)
    apart = steps[:, None] - steps[None, :]
    return apart.clamp(0, history - 1), (apart >= 0) & (apart < history)


class _Views(nn.Module):
    """A history in a few vectors: means that forget at learned rates, and the last items one by one."""

    def __init__(self, history: int) -> None:
        super().__init__()
        self.history = history
        self.forget = nn.Parameter(torch.logit(torch.tensor(_DECAYS)))
        gains = torch.ones(len(_DECAYS) + _LAST, _SIGNALS)
        gains[:, torch.from_numpy(IS_NEGATIVE)] = 0.0
        self.gains = nn.Parameter(gains)  # what each signal weighs in each view

    def forward(self, vectors: Tensor, signals: Tensor, at: Places) -> Tensor:
        """(positions, views, dim)."""
        apart, inside = _band(vectors.shape[1], self.history, vectors.device)
        decays = torch.sigmoid(self.forget)[:, None, None] ** apart * inside
        present = (signals > 0).to(vectors.dtype)[..., None]
        gains = self.gains.T[signals]
        if at is None:
            return self._of_last(vectors, gains, decays[:, -1], present)
        views = [
            (weight @ (vectors * gain[..., None])) / (weight @ present).clamp(min=_LEAST_WEIGHT)
            for weight, gain in zip(decays, gains.unbind(-1), strict=False)
        ]
        views += [_shifted(vectors * gains[..., len(_DECAYS) + back, None], back) for back in range(_LAST)]
        return torch.stack([view[at] for view in views], dim=1)

    def _of_last(self, vectors: Tensor, gains: Tensor, decays: Tensor, present: Tensor) -> Tensor:
        """(n, views, dim) of the last positions alone: a fraction of the work, and all that a worker asks for."""
        means = (decays * gains[..., : len(_DECAYS)].mT) @ vectors / (decays @ present).clamp(min=_LEAST_WEIGHT)
        newest = [vectors[:, -1 - back] * gains[:, -1 - back, len(_DECAYS) + back, None] for back in range(_LAST)]
        return torch.cat([means, torch.stack(newest, dim=1)], dim=1)


class _MeanPool(nn.Module):
    """Layers over the views, over how often each signal came, and over how long ago the last listens were."""

    def __init__(self, dim: int, *, history: int, dropout: float) -> None:
        super().__init__()
        self.history = history
        self.width = 128
        inputs = (len(_DECAYS) + _LAST) * dim + _SIGNALS + _LAST - 1
        self.layers = nn.Sequential(
            Dropout(dropout),
            nn.Linear(inputs, 256),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(256, self.width),
            nn.GELU(),
            Dropout(dropout),
        )

    def forward(self, vectors: Tensor, views: Tensor, signals: Tensor, ages: Tensor, at: Places) -> Tensor:
        rows = slice(-1, None) if at is None else slice(None)
        _, inside = _band(vectors.shape[1], self.history, vectors.device)
        came = inside[rows].to(vectors.dtype) @ functional.one_hot(signals, _SIGNALS).to(vectors.dtype)
        came = came * (torch.arange(_SIGNALS, device=vectors.device) > 0)  # a signal of 0 is no listen
        counts = torch.log1p(came) / math.log1p(self.history)
        spans = [_age((_shifted(ages, back) - ages)[:, rows, None]).to(vectors.dtype) for back in range(1, _LAST)]
        return self.layers(torch.cat([views.flatten(1), *(_chosen(part, at) for part in (counts, *spans))], dim=-1))


def _chosen(values: Tensor, at: Places) -> Tensor:
    return values[:, 0] if at is None else values[at]


class Dropout(nn.Module):
    """nn.Dropout, its probability rounded to 256ths: it draws eight times fewer random numbers.

    On a CPU these numbers are drawn one after the other, and took a sixth of the training.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(256 * probability)

    def forward(self, values: Tensor) -> Tensor:
        """Values, some of them zero, as many times larger as there are fewer; as they are where it is not training."""
        if not self.training or not self.dropped:
            return values
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device)
        drawn = words.random_(-(2**63), None).view(torch.uint8)[: values.numel()].view(values.shape)
        return values * ((drawn >= self.dropped) * (256 / (256 - self.dropped)))


def _shifted(sequence: Tensor, back: int) -> Tensor:
    """At each position what stood `back` positions before it; zeros before the beginning."""
    if back == 0:
        return sequence
    pad = (0, 0) * (sequence.dim() - 2) + (back, 0)
    return functional.pad(sequence, pad)[:, :-back]


def _age(seconds: Tensor) -> Tensor:
    """Seconds on a logarithmic scale, 0 to about 1."""
    return torch.log1p(seconds.clamp(min=0.0)) / _LONGEST_AGE


class _AttentionPool(nn.Module):
    """Causal self-attention, pre-norm; positions and ages enter as learned biases, relative to the listen that asks."""

    def __init__(self, dim: int, *, history: int, dropout: float) -> None:
        super().__init__()
        self.history = history
        self.width = 64
        self.enter = nn.Linear(dim, self.width)
        self.signal = nn.Parameter(0.02 * torch.randn(_SIGNALS, self.width))
        self.drop = Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(self.width, history=history, dropout=dropout) for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, vectors: Tensor, _: Tensor, signals: Tensor, ages: Tensor, at: Places) -> Tensor:
        apart, inside = _band(vectors.shape[1], self.history, vectors.device)
        seen = inside & (signals > 0)[:, None, None, :]  # (n, 1, length, length)
        seen = seen | torch.eye(len(apart), dtype=torch.bool, device=vectors.device)  # an empty row would give NaN
        ages = _age(ages[:, None, None, :] - ages[:, None, :, None]).to(vectors.dtype)
        hidden = self.drop(self.enter(vectors) + self.signal[signals])
        for block in self.blocks:
            hidden = block(hidden, apart, ages, seen)
        return self.norm(hidden[:, -1] if at is None else hidden[at])


class _Block(nn.Module):
    def __init__(self, width: int, *, history: int, dropout: float) -> None:
        super().__init__()
        self.attended = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.by_position = nn.Parameter(torch.zeros(history, _HEADS))
        self.by_age = nn.Parameter(torch.zeros(_HEADS))
        self.drop = Dropout(dropout)
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(self, hidden: Tensor, apart: Tensor, ages: Tensor, seen: Tensor) -> Tensor:
        heads = [
            part.unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for part in self.project(self.attended(hidden)).chunk(3, -1)
        ]
        query, key, value = heads
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        scores = scores + self.by_position[apart].permute(2, 0, 1) + self.by_age[:, None, None] * ages
        weights = self.drop(scores.masked_fill(~seen, -math.inf).softmax(-1))
        hidden = hidden + self.drop(self.mixed((weights @ value).transpose(1, 2).flatten(2)))
        return hidden + self.drop(self.layers(hidden))


class Items(nn.Module):
    """The vectors of the tracks, and the temperature of the scores.

    Args:
        start: (tracks, dim) where they begin.
        sparse: only the rows that a step touches are updated.
        unit_norm: as in Tower.
    """

    def __init__(self, start: Tensor, *, sparse: bool, unit_norm: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=sparse)
        self.unit_norm = unit_norm
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """(..., dim) vectors of tracks (...), of all of them when None."""
        vectors = self.table.weight if rows is None else self.table(rows)
        return functional.normalize(vectors, dim=-1) if self.unit_norm else vectors

    @property
    def scale(self) -> Tensor:
        """One over the temperature, at most 50."""
        return self.log_scale.exp().clamp(max=50.0)
