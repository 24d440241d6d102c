import math

import pytest
import torch
from torch.nn import functional

from offline.user_tower.losses import Softmax, gbce, sampled_softmax
from offline.user_tower.networks import Items

DIM = 8


def problem(rows=50, tracks=30, seed=0):
    torch.manual_seed(seed)
    users = functional.normalize(torch.randn(rows, DIM), dim=-1).requires_grad_()
    items = Items(torch.randn(tracks, DIM), sparse=False)
    return users, items, torch.randint(tracks, (rows,))


def test_the_full_softmax_and_its_gradients_are_those_of_cross_entropy():
    users, items, targets = problem(rows=600)
    wanted = functional.cross_entropy(users @ items().T * items.scale, targets)
    gradients = torch.autograd.grad(wanted * 3, [users, *items.parameters()])
    found = Softmax.apply(users, items(), items.scale, targets, None)
    torch.testing.assert_close(found, wanted)
    for own, other in zip(torch.autograd.grad(found * 3, [users, *items.parameters()]), gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_the_sampled_softmax_becomes_the_full_one_as_negatives_grow():
    users, items, targets = problem(rows=200, tracks=300)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        full = Softmax.apply(users, items(), items.scale, targets, None)
        apart = [
            abs(sum(sampled_softmax(users, items, targets, negatives=n, generator=generator) for _ in range(20)) / 20
                - full).item()
            for n in (40, 400, 40_000)
        ]  # fmt: skip
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 1e-3


def test_the_sampled_softmax_and_its_gradients_are_those_of_cross_entropy_over_what_is_drawn():
    users, items, targets = problem(rows=300, tracks=500)
    drawn = torch.Generator().manual_seed(4)
    in_batch = targets[torch.randint(300, (20,), generator=drawn)]
    negatives = torch.cat([in_batch, torch.randint(500, (20,), generator=drawn)]).unique()
    share = torch.bincount(targets, minlength=500) / 300
    log_q = torch.log(1 - (1 - share) ** 20 * (1 - 1 / 500) ** 20)
    scores = users @ items().T * items.scale - log_q
    others = scores[:, negatives].masked_fill(negatives == targets[:, None], -math.inf)
    logits = torch.cat([scores[torch.arange(300), targets][:, None], others], 1)
    wanted = functional.cross_entropy(logits, torch.zeros(300, dtype=torch.long))
    gradients = torch.autograd.grad(wanted, [users, *items.parameters()])
    found = sampled_softmax(users, items, targets, negatives=40, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(found, wanted)
    for own, other in zip(torch.autograd.grad(found, [users, *items.parameters()]), gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_a_negative_that_is_the_target_is_masked():
    users, items, _ = problem(rows=10, tracks=1)
    targets = torch.zeros(10, dtype=torch.long)
    loss = sampled_softmax(users, items, targets, negatives=64, generator=torch.Generator().manual_seed(0))
    assert loss.item() == 0.0


def test_gbce_without_calibration_is_binary_cross_entropy():
    users, items, targets = problem(rows=40, tracks=2000)
    with torch.no_grad():
        found = gbce(users, items, targets, negatives=7, calibration=0.0, generator=torch.Generator().manual_seed(3))
        sampled = torch.randint(2000, (7,), generator=torch.Generator().manual_seed(3))
        assert not torch.isin(sampled, targets).any()
        scores = torch.cat([(users * items(targets)).sum(1)[:, None], users @ items(sampled).T], 1) * items.scale
        labels = torch.zeros_like(scores)
        labels[:, 0] = 1.0
        wanted = functional.binary_cross_entropy_with_logits(scores, labels, reduction="none").sum(1).mean()
    torch.testing.assert_close(found, wanted)


def test_gbce_with_full_calibration_weighs_the_target_by_the_sampling_rate():
    users, items, targets = problem(rows=40, tracks=2000)
    with torch.no_grad():
        losses = [
            gbce(users, items, targets, negatives=7, calibration=t, generator=torch.Generator().manual_seed(3)).item()
            for t in (0.0, 1.0)
        ]
        right = functional.logsigmoid((users * items(targets)).sum(1) * items.scale).mean().item()
    assert losses[0] - losses[1] == pytest.approx(-(1 - 7 / 1999) * right, rel=1e-4)
