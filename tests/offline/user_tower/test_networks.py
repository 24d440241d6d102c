import math

import pytest
import torch
from torch.nn import functional

from models.history import Signal
from offline.user_tower.networks import FullSoftmax, Items, Tower, _MeanPool, gbce, sampled_softmax

DIM, HISTORY, LENGTH = 8, 5, 13


@pytest.fixture(params=["mean", "attention"])
def tower(request):
    torch.manual_seed(0)
    tower = Tower(request.param, dim=DIM, history=HISTORY, dropout=0.3).eval()
    for weight in tower.parameters():  # what begins at zero has to count too
        torch.nn.init.normal_(weight, std=0.5)
    return tower


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_tower_begins_as_a_decayed_mean_of_what_was_liked(pooling):
    tower = Tower(pooling, dim=DIM, history=HISTORY, dropout=0.3).eval()
    vectors, signals, ages_s = listens(1, HISTORY)
    signals[:] = torch.tensor([1, 4, 5, 3, 2])
    weights = sum(decay ** torch.arange(HISTORY).flip(0) / (decay ** torch.arange(HISTORY)).sum()
                  for decay in torch.tensor([[0.7], [0.9], [0.98]]))  # fmt: skip
    liked = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    wanted = functional.normalize(((weights * liked)[..., None] * vectors).sum(1), dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(tower(vectors, signals, ages_s), wanted)


def listens(count=3, length=LENGTH, seed=1):
    torch.manual_seed(seed)
    vectors = functional.normalize(torch.randn(count, length, DIM), dim=-1)
    signals = torch.randint(1, len(Signal), (count, length))
    ages_s = torch.rand(count, length, dtype=torch.float64).mul(1e6).cumsum(1).flip(1)
    return vectors, signals, ages_s - ages_s[:, -1:]


def test_every_position_of_a_window_is_the_embedding_of_the_history_that_ends_there(tower):
    length = LENGTH if isinstance(tower.pool, _MeanPool) else HISTORY  # the window of attention is its history
    vectors, signals, ages_s = listens(length=length)
    with torch.no_grad():
        windows = tower(vectors, signals, ages_s, torch.ones_like(signals, dtype=torch.bool)).unflatten(0, (3, length))
        for end in range(1, length + 1):
            start = max(0, end - HISTORY)
            pad = HISTORY - (end - start)
            alone = tower(
                functional.pad(vectors[:, start:end], (0, 0, pad, 0)),
                functional.pad(signals[:, start:end], (pad, 0)),
                functional.pad(ages_s[:, start:end] - ages_s[:, end - 1 : end], (pad, 0)),
            )
            torch.testing.assert_close(windows[:, end - 1], alone, rtol=0, atol=2e-5)


def test_embeddings_have_unit_norm_and_depend_on_items_signals_ages_and_order(tower):
    vectors, signals, ages_s = listens(1, HISTORY)
    signals[:] = torch.tensor([1, 4, 5, 1, 2])
    with torch.no_grad():
        embedding = tower(vectors, signals, ages_s)
        assert torch.linalg.vector_norm(embedding).item() == pytest.approx(1.0, abs=1e-6)
        for other in (
            (vectors.flip(1), signals, ages_s),
            (vectors, signals.roll(1, 1), ages_s),
            (vectors, signals, ages_s * 100),
        ):
            assert (tower(*other) - embedding).abs().max() > 1e-3


def test_in_a_window_what_is_older_than_the_history_does_not_count():
    tower = Tower("mean", dim=DIM, history=HISTORY, dropout=0.3).eval()
    torch.nn.init.normal_(tower.leave.weight)
    vectors, signals, ages_s = listens()
    with torch.no_grad():
        embedding = tower(vectors, signals, ages_s)
        vectors[:, :-HISTORY] = 1.0
        signals[:, :-HISTORY] = 6
        torch.testing.assert_close(tower(vectors, signals, ages_s), embedding)


def problem(rows=50, tracks=30, seed=0):
    torch.manual_seed(seed)
    users = functional.normalize(torch.randn(rows, DIM), dim=-1).requires_grad_()
    items = Items(torch.randn(tracks, DIM), sparse=False)
    return users, items, torch.randint(tracks, (rows,))


def test_the_full_softmax_and_its_gradients_are_those_of_cross_entropy():
    users, items, targets = problem(rows=600)
    wanted = functional.cross_entropy(users @ items().T * items.scale, targets)
    gradients = torch.autograd.grad(wanted * 3, [users, *items.parameters()])
    found = FullSoftmax.apply(users, items(), items.scale, targets)
    torch.testing.assert_close(found, wanted)
    for own, other in zip(torch.autograd.grad(found * 3, [users, *items.parameters()]), gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_the_sampled_softmax_becomes_the_full_one_as_negatives_grow():
    users, items, targets = problem(rows=200, tracks=300)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        full = FullSoftmax.apply(users, items(), items.scale, targets)
        apart = [
            abs(sum(sampled_softmax(users, items, targets, negatives=n, generator=generator) for _ in range(20)) / 20
                - full).item()
            for n in (40, 400, 40_000)
        ]  # fmt: skip
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 1e-3


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


def test_items_have_unit_norm_and_scores_a_bounded_scale():
    items = Items(torch.randn(20, DIM), sparse=False)
    assert torch.linalg.vector_norm(items(), dim=1).tolist() == pytest.approx([1.0] * 20)
    assert items.scale.item() == pytest.approx(1 / 0.07)
    torch.nn.init.constant_(items.log_scale, math.log(1000.0))
    assert items.scale.item() == 50.0
