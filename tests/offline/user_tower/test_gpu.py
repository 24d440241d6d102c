"""What a GPU has to do like a CPU; without one, these tests are passed over."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.user_tower import load_user_tower
from offline.user_tower.candidate import Candidate
from offline.user_tower.data import prepare
from offline.user_tower.parallel import Team
from offline.user_tower.scorer import NetworkScorer
from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import run, train
from offline.user_tower.windows import Windows
from tests.offline.user_tower.rule_log import ALONE, QUICK, write_log

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")

LOSSES = [{}, {"full_softmax_tracks": 10, "negatives": 64}, {"loss": "gbce", "negatives": 16}]
KINDS = [*({"pooling": "mean"} | loss for loss in LOSSES), {"pooling": "attention"}]


def data_of(folder, **settings):
    log = write_log(folder / "log.parquet", users=120)
    training = TowerTraining(log=log, out=str(folder / "tower"), **QUICK | {"dropouts": (0.1,)} | settings)
    return prepare(training, scratch=folder, team=ALONE)


def loss_and_gradients(data, device: str, folder):
    candidate = Candidate(replace(data, team=Team(device=torch.device(device))), 0.0, folder / "none")
    batch: Windows = next(data.steps())
    loss = candidate.network.loss(batch, torch.device(device), torch.Generator().manual_seed(0))
    loss.backward()
    gradients = [weight.grad for weight in candidate.network.parameters() if weight.grad is not None]
    return loss.item(), [part.to_dense().cpu() if part.is_sparse else part.cpu() for part in gradients]


@pytest.mark.parametrize("settings", KINDS)
def test_a_step_has_the_loss_and_the_gradients_of_a_cpu(settings, tmp_path):
    data = data_of(tmp_path, **settings)
    (loss, gradients), (wanted, others) = (loss_and_gradients(data, device, tmp_path) for device in ("cuda", "cpu"))
    assert loss == pytest.approx(wanted, rel=1e-4)
    assert len(gradients) == len(others) > 5
    for own, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("settings", KINDS)
def test_a_validation_has_the_figure_of_a_cpu(settings, tmp_path):
    data = data_of(tmp_path, **settings)
    found = []
    for device in ("cuda", "cpu"):
        of_device = replace(data, team=Team(device=torch.device(device)))
        candidate = Candidate(of_device, 0.1, tmp_path / "none")
        scorer = NetworkScorer(of_device, candidate.average.tower, candidate.average.items)
        found.append([scorer.ndcg(data.examples, protocol) for protocol in ("discovery", "replay")])
    assert found[0] == pytest.approx(found[1], abs=2e-3)


@pytest.mark.parametrize("settings", KINDS)
def test_a_training_gives_the_tower_of_a_cpu_within_the_spread_of_seeds(settings, tmp_path):
    few = {"dropouts": (0.1,), "steps": 100, "validate_every": 50} | settings
    alone = []
    for seed in range(3):
        (folder := tmp_path / f"{seed}").mkdir()
        alone.append(train(data_of(folder, seed=seed, **few), folder).best_score)
    log = write_log(tmp_path / "log.parquet", users=120)
    run(TowerTraining(log=log, out=str(tmp_path / "gpu"), device="cuda", **QUICK | few))
    made = load_user_tower(tmp_path / "gpu").manifest.training
    assert abs(made["valid_ndcg_at_10"] - np.mean(alone)) < 3 * max(0.02, np.std(alone, ddof=1))
