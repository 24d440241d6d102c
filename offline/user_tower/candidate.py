"""A tower in training with one of the dropouts that are tried."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import SettingsError
from offline.user_tower.checkpoint import Course, load_checkpoint, save_checkpoint
from offline.user_tower.data import TrainingData
from offline.user_tower.losses import Softmax, gbce, sampled_softmax
from offline.user_tower.networks import Items, Tower
from offline.user_tower.scorer import NetworkScorer
from offline.user_tower.windows import Windows

_AVERAGED_EVERY = 10  # steps: the whole of a large item table is read and written each time


class Network(nn.Module):
    """A tower and the items that it is trained with."""

    def __init__(self, data: TrainingData, dropout: float) -> None:
        super().__init__()
        settings, cosine = data.settings, data.settings.score == "cosine"
        self.settings = settings
        self.is_sampled = settings.loss == "softmax" and len(data.learned) > settings.full_softmax_tracks
        self.tower = Tower(
            settings.pooling, dim=settings.dim, history=settings.history, dropout=dropout, unit_norm=cosine
        )
        self.items = Items(data.start, unit_norm=cosine, sparse=self.is_sampled or settings.loss == "gbce")

    def loss(self, batch: Windows, device: torch.device, generator: torch.Generator) -> Tensor:
        """The mean loss over the positions that train."""
        settings = self.settings
        rows, signals, ages_s, trains, targets = (
            torch.from_numpy(array).to(device, non_blocking=True) for array in batch
        )
        every = None if self.items.table.sparse else self.items()
        vectors = self.entered(self.items(rows) if every is None else functional.embedding(rows, every), rows)
        users = self.tower(vectors * (signals > 0)[..., None], signals, ages_s, trains)
        if settings.loss == "gbce":
            return gbce(users, self.items, targets, negatives=settings.negatives,
                        calibration=settings.calibration, generator=generator)  # fmt: skip
        if self.is_sampled:
            return sampled_softmax(users, self.items, targets, negatives=settings.negatives, generator=generator)
        return Softmax.apply(users, every, self.items.scale, targets, None)

    def entered(self, vectors: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """What goes into the tower of the vectors (n, length, dim) of items (n, length): they as they are."""
        return vectors


class Candidate:
    """A network in training with one dropout, the running average of its weights, and the best of these averages.

    Each stretch between two validations has a seed of its own, made from its first step, so that a training that was
    killed and goes on ends like one that was not.

    Attributes:
        network, average, best: as above; validations rank with the average, and the best is what becomes the tower.
        steps: how many are done.
        course: what each validation told.
    """

    def __init__(self, data: TrainingData, dropout: float, path: Path) -> None:
        """Take up the checkpoint at the path, where there is one of this log and these settings."""
        settings = data.settings
        torch.manual_seed(settings.seed)
        self.data, self.dropout, self.path = data, dropout, path
        self.network = self.begin().to(data.device)
        self.average = deepcopy(self.network).eval().requires_grad_(False)
        self.best = deepcopy(self.average)
        self._networks = {"network": self.network, "average": self.average, "best": self.best}
        table = self.network.items.table
        trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        rest = [weight for weight in trained if weight is not table.weight or not table.sparse]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        ]
        if table.sparse and table.weight.requires_grad:
            self.optimisers.append(torch.optim.SparseAdam([table.weight], lr=settings.learning_rate))
        self.course: Course = load_checkpoint(path, key=data.key, networks=self._networks, optimisers=self.optimisers)
        self.steps = self._averaged = int(self.course[-1]["step"]) if self.course else 0

    def begin(self) -> Network:
        """The network before its first step."""
        return Network(self.data, self.dropout)

    @property
    def best_score(self) -> float:
        """NDCG@10 of the best validation so far; -1 before the first one."""
        return max((point["valid_ndcg_at_10"] for point in self.course), default=-1.0)

    @property
    def best_step(self) -> int:
        """The step of that validation."""
        return int(max(self.course, key=lambda point: point["valid_ndcg_at_10"])["step"])

    @property
    def is_stale(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        since = self.steps - self.best_step if self.course else 0
        return since >= self.data.settings.patience * self.data.budget.validate_every

    def train(self, batches: Iterable[Windows], *, advance: Callable[[], object]) -> None:
        """Train up to the next validation, validate, and write the checkpoint.

        Args:
            batches: a step each.
            advance: called after each step.

        Raises:
            SettingsError: the loss is no number any more.
        """
        data, settings, began = self.data, self.data.settings, time.monotonic()
        seed = (settings.seed * 1_000_003 + self.steps) * 1_009 + data.team.rank
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self.network.train()
        losses, examples = torch.zeros((), dtype=torch.float64, device=data.device), 0
        for batch in batches:
            losses += self._step(batch, generator) * len(batch.targets)
            examples += len(batch.targets)
            advance()
        self._average()
        total, examples = data.team.total(losses.item(), examples)  # no step waited for its loss
        if not math.isfinite(total):
            raise SettingsError(
                f"the loss is no number any more after {self.steps} steps; run this again with a learning_rate "
                f"below {settings.learning_rate}"
            )
        seconds, score = time.monotonic() - began, self.validate(self.average)
        if score > self.best_score:
            self.best.load_state_dict(self.average.state_dict())
        point = {"step": self.steps, "loss": total / examples, "valid_ndcg_at_10": score}
        self.course.append(point | {"examples": examples, "seconds": seconds})
        if data.team.leads:
            save_checkpoint(
                self.path, key=data.key, course=self.course, networks=self._networks, optimisers=self.optimisers
            )
        data.team.wait()

    def _step(self, batch: Windows, generator: torch.Generator) -> Tensor:
        """The loss of a step."""
        settings = self.data.settings
        for optimiser in self.optimisers:
            optimiser.param_groups[0]["lr"] = settings.learning_rate * min(1.0, (self.steps + 1) / settings.warm_up)
            optimiser.zero_grad()
        loss = self.network.loss(batch, self.data.device, generator)
        loss.backward()
        self.data.team.share_gradients(self.network.parameters())
        nn.utils.clip_grad_norm_(self.optimisers[0].param_groups[0]["params"], settings.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.steps += 1
        if self.steps % _AVERAGED_EVERY == 0:
            self._average()
        return loss.detach()

    def _average(self) -> None:
        """Take the steps since the last time into the average of the weights."""
        kept = min(self.data.settings.averaging, self.steps / (self.steps + 9))  # the first weights are soon forgotten
        share, self._averaged = 1 - kept ** (self.steps - self._averaged), self.steps
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(weight, share)

    def validate(self, network: Network) -> float:
        """NDCG@10 of a network, in discovery where it has an example."""
        protocol = "replay" if self.data.examples.seen.all() else "discovery"
        return NetworkScorer(self.data, network.tower, network.items).ndcg(self.data.examples, protocol)
