import math

import pytest
import torch
from torch.nn import functional

from models.history import Signal
from offline.user_tower.networks import Items, Tower, _MeanPool

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


def test_items_have_unit_norm_and_scores_a_bounded_scale():
    items = Items(torch.randn(20, DIM), sparse=False)
    assert torch.linalg.vector_norm(items(), dim=1).tolist() == pytest.approx([1.0] * 20)
    assert items.scale.item() == pytest.approx(1 / 0.07)
    torch.nn.init.constant_(items.log_scale, math.log(1000.0))
    assert items.scale.item() == 50.0
