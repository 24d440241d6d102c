"""Training in several processes, which torchrun starts: each has a share of the steps of an epoch.

After each step the processes share their gradients, so that all of them have the same weights at every moment. It is
not DistributedDataParallel, which sums sparse gradients; NCCL cannot do that, and their rows are gathered here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import get_node_local_rank

from models.errors import SettingsError
from offline.user_tower.settings import Device


@dataclass(frozen=True, kw_only=True)
class Team:
    """The processes of a training. One alone shares nothing.

    Attributes:
        device: what this process trains on.
        rank: which of them this is.
        size: how many they are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def total(self, *numbers: float) -> list[float]:
        """The sums of numbers over all processes."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def share_gradients(self, weights: Iterable[Tensor]) -> None:
        """Give each weight the mean of its gradients: dense ones are reduced, the rows of sparse ones gathered."""
        if self.size == 1:
            return
        gradients = [(weight, weight.grad) for weight in weights if weight.grad is not None]
        dense = [gradient for _, gradient in gradients if not gradient.is_sparse]
        flat = torch.cat([gradient.flatten() for gradient in dense])
        dist.all_reduce(flat)
        for gradient, mean in zip(dense, (flat / self.size).split([part.numel() for part in dense]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        for weight, gradient in gradients:
            if gradient.is_sparse:
                weight.grad = self._gathered(gradient.coalesce())

    def _gathered(self, gradient: Tensor) -> Tensor:
        """The mean of a sparse gradient (rows, dim) over the processes."""
        count = torch.tensor([gradient.indices().shape[1]], device=self.device)
        counts = [torch.empty_like(count) for _ in range(self.size)]
        dist.all_gather(counts, count)
        most = max(map(int, counts))
        parts: list[list[Tensor]] = []
        for own in (gradient.indices()[0], gradient.values() / self.size):
            padded = own.new_zeros((most, *own.shape[1:]))
            padded[: len(own)] = own
            found = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(found, padded)
            parts.append([part[: int(n)] for part, n in zip(found, counts, strict=True)])
        rows, values = (torch.cat(part) for part in parts)
        return torch.sparse_coo_tensor(rows[None], values, gradient.shape).coalesce()


@contextmanager
def team_of(device: Device) -> Iterator[Team]:
    """The processes that torchrun started, or this one alone.

    Example:
        with team_of(settings.device) as team:
            tower.to(team.device)

    Raises:
        SettingsError: device=cuda, and PyTorch finds no GPU, or torchrun started more processes here than it finds.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device=cuda, but PyTorch finds no GPU here; use device=cpu, or see to its driver")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if not dist.is_torchelastic_launched():
        yield Team(device=torch.device("cuda" if on_gpu else "cpu"))
        return
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if on_gpu and here > gpus:
        raise SettingsError(
            f"torchrun started {here} processes here, and each needs a GPU of its own, of which there are {gpus}; "
            f"use --nproc-per-node {gpus}, or device=cpu"
        )
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        own = torch.device("cuda", get_node_local_rank()) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(own)
        yield Team(device=own, rank=dist.get_rank(), size=dist.get_world_size())
    finally:
        dist.destroy_process_group()
