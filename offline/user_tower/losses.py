"""The losses that a user tower trains with: full softmax, sampled softmax and gBCE."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from offline.user_tower.networks import Items

_GPU_SCORES = 2**28  # 1 GB


class Softmax(torch.autograd.Function):
    """Mean cross-entropy of the scaled scores of tracks, all or those that are drawn, without keeping the scores.

    The forward pass computes the gradients too, in blocks of rows, so that a block's scores stay in the cache: three
    times faster on a CPU than functional.cross_entropy on the whole. On a GPU a block has 1 GB of scores.

    Example:
        loss = Softmax.apply(users, items(), items.scale, targets, None)
        loss.backward()
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, users: Tensor, items: Tensor, scale: Tensor, targets: Tensor, drawn: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The loss of users (n, dim), items (tracks, dim), a scale and targets (n,).

        Where tracks are drawn, `drawn` has the logs of the probabilities of that, which are subtracted from the
        scores, and a mask of the tracks that were drawn: these count alone, with the target of each row.
        """
        loss = users.new_zeros((), dtype=torch.float64)
        to_users, to_items, to_scale = torch.empty_like(users), torch.zeros_like(items), users.new_zeros(())
        block = max(64, min(256, 2**20 // len(items)) if users.is_cpu else _GPU_SCORES // len(items))
        for start in range(0, len(users), block):
            user, target = users[start : start + block], targets[start : start + block]
            scaled = user * scale
            scores = scaled @ items.T
            ones = torch.arange(len(target), device=users.device)
            if drawn is not None:
                log_q, mask = drawn
                scores -= log_q
                own = scores[ones, target]
                scores.masked_fill_(~mask, -math.inf)
                scores[ones, target] = own
            right = scores[ones, target]
            most = scores.amax(1, keepdim=True)
            scores.sub_(most).exp_()
            total = scores.sum(1, keepdim=True)
            loss += (total.log() + most).sum() - right.sum()
            scores.div_(total)
            scores[ones, target] -= 1.0
            to_scaled = scores @ items
            to_users[start : start + block] = to_scaled * scale
            to_scale += (to_scaled * user).sum()
            to_items.addmm_(scores.T, scaled)
        ctx.save_for_backward(to_users, to_items, to_scale)
        ctx.count = len(users)
        return (loss / len(users)).to(users.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, which the forward pass has computed."""
        share = grads[0] / ctx.count
        return *(saved * share for saved in ctx.saved_tensors), None, None


def sampled_softmax(
    users: Tensor, items: Items, targets: Tensor, *, negatives: int, generator: torch.Generator
) -> Tensor:
    """Mean cross-entropy against negatives that all rows share: half from the batch's targets, half uniform.

    A track drawn twice counts once. The log of its probability of being drawn from that mixture is subtracted from
    its score after the temperature, the target's too, so that the full softmax is the limit of many negatives; a
    negative that is a row's target is masked (Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, RecSys 2019).

    Args:
        users: (n, dim).
        items: the tracks.
        targets: (n,) rows of items.
        negatives: how many are drawn.
        generator: of random numbers, on the CPU.
    """
    tracks, half = items.table.num_embeddings, negatives // 2
    drawn = torch.randint(len(targets), (half,), generator=generator).to(targets.device)
    uniform = torch.randint(tracks, (negatives - half,), generator=generator).to(targets.device)
    distinct, place = torch.unique(torch.cat([targets, targets[drawn], uniform]), return_inverse=True)
    target, is_drawn = place[: len(targets)], torch.zeros(len(distinct), dtype=torch.bool, device=targets.device)
    is_drawn[place[len(targets) :]] = True
    in_batch = torch.bincount(target, minlength=len(distinct)) / len(targets)
    missed = half * torch.log1p(-in_batch) + (negatives - half) * torch.log1p(torch.tensor(-1 / tracks))
    log_q = torch.log(-torch.expm1(missed))
    return Softmax.apply(users, items(distinct), items.scale, target, (log_q, is_drawn))


def gbce(
    users: Tensor, items: Items, targets: Tensor, *, negatives: int, calibration: float, generator: torch.Generator
) -> Tensor:
    """Generalised binary cross-entropy (Petrov & Macdonald, gSASRec, RecSys 2023, equations 10 and 11).

    Args:
        users: (n, dim).
        items: the tracks.
        targets: (n,) rows of items.
        negatives: drawn uniformly, shared by all rows.
        calibration: t of the paper; 0 is plain binary cross-entropy, 1 makes scores probabilities.
        generator: of random numbers, on the CPU.
    """
    tracks = items.table.num_embeddings
    rate = negatives / max(1, tracks - 1)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    sampled = torch.randint(tracks, (negatives,), generator=generator).to(targets.device)
    right = (users * items(targets)).sum(1) * items.scale
    scores = users @ items(sampled).T * items.scale
    wrong = functional.softplus(scores).masked_fill(sampled[None, :] == targets[:, None], 0.0)
    return (wrong.sum(1) - beta * functional.logsigmoid(right)).mean()
