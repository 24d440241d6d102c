import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from models.errors import SettingsError
from models.user_tower import load_user_tower
from offline.user_tower.parallel import Team, team_of
from tests.offline.user_tower.rule_log import QUICK, train_alone, write_log
from tests.platform.commands import OFFLINE

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def network() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3), nn.Linear(3, 1)])


def loss(network, rows):
    table, *layers = network
    return nn.Sequential(*layers)(table(rows)).tanh().mean()


ROWS = torch.tensor([[0, 3, 3, 8], [3, 1, 0, 0]])  # a row of each process
FEWER = torch.tensor([2, 2])


def share(rank: int, folder: Path) -> None:
    os.environ |= LOOPBACK
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    team, own = Team(device=torch.device("cpu"), rank=rank, size=2), network()
    loss(own, ROWS[rank]).backward()
    team.share_gradients(own.parameters())
    torch.save([weight.grad for weight in own.parameters()], folder / f"gradients-{rank}")
    own.zero_grad()
    loss(own, FEWER if rank else ROWS[0]).backward()
    team.share_gradients(own.parameters())
    torch.save(own[0].weight.grad, folder / f"uneven-{rank}")
    assert team.total(1.0 + rank, 5.0) == [3.0, 10.0]
    team.wait()
    dist.destroy_process_group()


def test_two_processes_get_the_mean_of_their_gradients_dense_and_sparse(tmp_path):
    torch.multiprocessing.spawn(share, (tmp_path,), nprocs=2)
    alone = network()
    loss(alone, ROWS.flatten()).backward()
    wanted = [weight.grad.to_dense() for weight in alone.parameters()]
    alone.zero_grad()
    ((loss(alone, ROWS[0]) + loss(alone, FEWER)) / 2).backward()
    for rank_ in range(2):
        found = torch.load(tmp_path / f"gradients-{rank_}", weights_only=True)
        assert [part.is_sparse for part in found] == [True, False, False, False, False]
        for own, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(own.to_dense(), other)
        uneven = torch.load(tmp_path / f"uneven-{rank_}", weights_only=True)
        torch.testing.assert_close(uneven.to_dense(), alone[0].weight.grad.to_dense())
        assert uneven.coalesce().indices().tolist() == [[0, 2, 3, 8]]


def command(log_path, out, **settings):
    words = [f"{key}={msgspec.json.encode(value).decode()}" for key, value in settings.items()]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python",
        str(OFFLINE), "train-user-tower", log_path, str(out), *words,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "loss", [pytest.param({}, marks=pytest.mark.soak), {"full_softmax_tracks": 10, "negatives": 64}]
)
def test_two_processes_give_the_tower_of_one_within_the_spread_of_seeds(loss, tmp_path):
    log_path = write_log(tmp_path / "log.parquet", users=120)
    settings = QUICK | {"dropouts": (0.1,), "steps": 60, "validate_every": 30} | loss
    alone = []
    for seed in range(3):
        _, chosen = train_alone(tmp_path / f"{seed}", log=log_path, seed=seed, **settings | {"positions": 480})
        alone.append(chosen.best_score)
    found = subprocess.run(
        command(log_path, tmp_path / "two", **settings), env=os.environ | LOOPBACK, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("user tower of 40 tracks") == 1
    assert not (tmp_path / "two.partial").exists()
    made = load_user_tower(tmp_path / "two").manifest.training
    assert made["processes"] == 2
    spread = max(0.02, np.std(alone, ddof=1))
    assert abs(made["valid_ndcg_at_10"] - np.mean(alone)) < 3 * spread
    assert np.mean(alone) > 0.25  # by chance .11


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence():
    with pytest.raises(SettingsError, match="device=cuda, but PyTorch finds no GPU here"), team_of("cuda"):
        pass


def test_more_processes_than_gpus_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("TORCHELASTIC_RUN_ID", "run"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    refused = pytest.raises(SettingsError, match=r"started 2 processes here, .* --nproc-per-node 1, or device=cpu")
    with refused, team_of("auto"):
        pass
