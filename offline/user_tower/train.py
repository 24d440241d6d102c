"""Training a user tower from an interaction log; reads top to bottom: what can be set, `run`, its steps."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from errno import EIO
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import click
import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.errors import SettingsError
from models.history import CountingRule
from models.user_tower import TOWER_MANIFEST, newest_known
from offline.evaluation.ranking import METRICS, Examples, rank
from offline.files import check_replaceable, new_file, writing
from offline.interactions.log import InteractionLog, read_log
from offline.interactions.splits import Split, SplitName, split_log
from offline.progress import progress_bar
from offline.user_tower.export import export
from offline.user_tower.networks import FullSoftmax, Items, Pooling, Tower, gbce, sampled_softmax
from offline.user_tower.start import spectral_start
from offline.user_tower.windows import Windows, catalogue_scores, histories, learned_tracks, windows

_TYPICAL_USERS = 20_000

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, lt=1.0)]
Rate = Annotated[float, Meta(gt=0.0)]


class TowerTraining(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set."""

    log: str
    """Parquet file, folder, glob or fsspec URL of listens."""

    out: str
    """Folder of the trained tower; beside it stands <out>.partial until the training is done."""

    split: SplitName = "temporal"
    """What is held back: see offline.interactions.splits."""

    test_share: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.1
    """Of the log's time, in a temporal split: so much for the test, and as much before it for validation."""

    counting: CountingRule = CountingRule()
    """Which listens count, and for what."""

    pooling: Pooling = "mean"
    """mean: learned means of the history, as in the paper; attention: two causal blocks."""

    history: Annotated[int, Meta(ge=3)] = 50
    """Newest listens that an embedding is made of."""

    dim: Count = 40
    """Of taste space."""

    score: Literal["cosine", "dot"] = "cosine"
    """dot is for `ladder` alone: what is deployed has unit vectors."""

    dropouts: Annotated[tuple[Share, ...], Meta(min_length=1)] = (0.1, 0.2, 0.3, 0.5)
    """Tried; the best in validation NDCG@10 is kept."""

    trial_steps: Annotated[tuple[Count, ...], Meta(min_length=1)] = (800, 3_000)
    """Steps after which the worse half of the dropouts is given up; after the last of them, all but the best: late,
    for a low dropout learns faster and ends earlier."""

    steps: Count = 7_000
    """At most; patience usually ends the training before."""

    validate_every: Count = 200
    """Steps from one validation to the next; a killed training goes on from the last one."""

    patience: Count = 6
    """Validations without a better NDCG@10 that end the training."""

    validation_examples: Count = 5_000
    """At most; a sample of them where there are more."""

    loss: Literal["softmax", "gbce"] = "softmax"
    """softmax: full below full_softmax_tracks, sampled above; gbce: of gSASRec."""

    full_softmax_tracks: Count = 100_000
    """Tracks from which on the softmax is sampled."""

    negatives: Annotated[int, Meta(ge=2)] = 4096
    """Of a sampled loss, shared by a step."""

    calibration: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.75
    """t of gBCE."""

    stride: Count = 150
    """Positions of a window that train, with mean; before them a window holds the history of the first. With attention,
    whose blocks look back one after the other, a window is as long as a history and its later half trains."""

    positions: Count = 4_800
    """Positions of a step that train, at most: it takes so many windows."""

    learning_rate: Rate = 2e-3
    """Of AdamW."""

    warm_up: Count = 1_500
    """Steps until the learning rate is reached: a small log is learned before that, gently, from where items start."""

    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.01
    """Of AdamW."""

    clip: Rate = 1.0
    """Largest norm of a step's gradient."""

    averaging: Share = 0.998
    """Decay, per step, of the average of the weights that is validated and kept."""

    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    """Equal seeds give equal towers on one machine; on a GPU, nearly equal ones."""

    @property
    def trains(self) -> int:
        """Positions of a window that train."""
        return self.stride if self.pooling == "mean" else max(1, self.history // 2)

    @property
    def context(self) -> int:
        """Listens of a window before those."""
        return self.history - (1 if self.pooling == "mean" else self.trains)


def run(config: TowerTraining) -> dict[str, Any]:
    """Train a tower and write its folder; a training that was killed goes on from its last validation.

    Returns:
        How it went, as the manifest's `training` has it.

    Raises:
        SettingsError: the log cannot be used, the split leaves a part empty, the loss is no number, or the
            folder cannot be written.
    """
    if config.score == "dot":
        raise SettingsError("score=dot makes no tower to deploy, whose vectors have unit norm; `ladder` compares it")
    out = Path(config.out).resolve()
    partial = out.with_name(out.name + ".partial")
    with writing(out, ": the training goes on from its last validation"):
        check_replaceable(out, TOWER_MANIFEST)
        partial.mkdir(parents=True, exist_ok=True)
        job = prepare(config, scratch=partial)
        chosen = train(job, partial)
        training = describe(job, chosen)
        export(
            chosen.best.tower, chosen.best.items, out=out, ids=job.log.tracks[job.learned].to_list(),
            global_embedding=typical(job, chosen.best), pooling=config.pooling, counting=config.counting,
            training=training,
        )  # fmt: skip
    shutil.rmtree(partial)
    return training


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What does not change while towers train.

    Attributes:
        learned: (items,) places in log.tracks of the tracks that get vectors.
        row_of: (tracks,) the inverse; -1 where there is none.
        start: (items, dim) where their vectors begin.
        examples: what a validation ranks.
        device: a GPU where there is one.
        key: of the configuration and the log: a training goes on from a checkpoint of the same.
    """

    config: TowerTraining
    log: InteractionLog
    split: Split
    learned: NDArray[np.int64]
    row_of: NDArray[np.int64]
    start: Tensor
    examples: Examples
    device: torch.device
    key: str


def prepare(config: TowerTraining, *, scratch: Path) -> Job:
    """Read the log, split it, and draw the examples of the validation."""
    log = read_log(config.log, rule=config.counting, scratch=scratch)
    split = split_log(log, config.split, test_share=config.test_share)
    learned = learned_tracks(log, split)
    row_of = np.full(len(log.tracks), -1, np.int64)
    row_of[learned] = np.arange(len(learned))
    positions = split.valid
    if len(positions) > config.validation_examples:
        rng = np.random.default_rng(config.seed)
        positions = np.sort(rng.choice(positions, config.validation_examples, replace=False))
    settings = msgspec.json.encode(msgspec.structs.replace(config, log="", out=""), order="sorted")
    return Job(
        config=config,
        log=log,
        split=split,
        learned=learned,
        row_of=row_of,
        start=torch.from_numpy(
            spectral_start(log, split, row_of, items=len(learned), dim=config.dim, seed=config.seed)
        ),
        examples=Examples.of(log, split, positions),
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        key=f"{log.fingerprint} {settings.decode()}",
    )


def train(job: Job, folder: Path) -> Candidate:
    """Train a tower for each dropout, give up the worse ones on the way, and train the best to its end."""
    config, dropouts = job.config, list(job.config.dropouts)
    # oneDNN keeps what it made for each shape that it has seen, and every step is of another shape.
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    with Course(config) as course:
        for until, kept in trials(config):
            tried = {dropout: advance(job, dropout, folder, course, until=until).best_score for dropout in dropouts}
            dropouts = sorted(tried, key=lambda dropout: -tried[dropout])[:kept]
        return advance(job, dropouts[0], folder, course, until=config.steps)


def trials(config: TowerTraining) -> list[tuple[int, int]]:
    """Of each trial the step that ends it, and how many dropouts are kept then."""
    kept = len(config.dropouts)
    ends = [min(until, config.steps) for until in config.trial_steps]
    return [(until, kept := 1 if until == ends[-1] else -(-kept // 2)) for until in ends]


def advance(job: Job, dropout: float, folder: Path, course: Course, *, until: int) -> Candidate:
    """Train with a dropout from where its checkpoint is, until so many steps are done or patience is at its end."""
    candidate = Candidate(job, dropout, folder / f"dropout-{dropout}.safetensors")
    course.at(candidate)
    batches = steps(job, done=candidate.steps)
    while candidate.steps < until and not candidate.is_stale:
        candidate.train(islice(batches, job.config.validate_every), course)
        course.validated(candidate)
    return candidate


def steps(job: Job, *, done: int = 0) -> Iterator[Windows]:
    """The steps of a training, without end, from the one after `done` on."""
    config = job.config
    batch = max(1, config.positions // config.trains)
    return windows(
        job.log, job.split, job.row_of,
        context=config.context, stride=config.trains, batch=batch, seed=config.seed, done=done,
    )  # fmt: skip


class Network(nn.Module):
    """A tower and the items that it is trained with."""

    def __init__(self, job: Job, dropout: float) -> None:
        super().__init__()
        config, cosine = job.config, job.config.score == "cosine"
        self.is_sampled = config.loss == "softmax" and len(job.learned) > config.full_softmax_tracks
        self.config = config
        self.tower = Tower(config.pooling, dim=config.dim, history=config.history, dropout=dropout, unit_norm=cosine)
        self.items = Items(job.start, unit_norm=cosine, sparse=self.is_sampled or config.loss == "gbce")

    def loss(self, batch: Windows, device: torch.device, generator: torch.Generator) -> Tensor:
        """The mean loss over the positions that train."""
        rows, signals, ages_s, trains, targets = (torch.from_numpy(array).to(device) for array in batch)
        every = None if self.items.table.sparse else self.items()
        vectors = self.items(rows) if every is None else every[rows]
        users = self.tower(vectors * (signals > 0)[..., None], signals, ages_s, trains)
        if self.config.loss == "gbce":
            return gbce(users, self.items, targets, negatives=self.config.negatives,
                        calibration=self.config.calibration, generator=generator)  # fmt: skip
        if self.is_sampled:
            return sampled_softmax(users, self.items, targets, negatives=self.config.negatives, generator=generator)
        return FullSoftmax.apply(users, every, self.items.scale, targets)


class Candidate:
    """A network in training with one dropout, the running average of its weights, and the best of these averages.

    The seed of every stretch between two validations is that of its first step, so that a training that was killed
    and goes on ends like one that was not.
    """

    def __init__(self, job: Job, dropout: float, path: Path) -> None:
        """Take up the checkpoint at the path, where there is one of this job."""
        torch.manual_seed(job.config.seed)
        self.job, self.dropout, self.path = job, dropout, path
        self.network = Network(job, dropout).to(job.device)
        self.average = deepcopy(self.network).eval().requires_grad_(False)
        self.best = deepcopy(self.average)
        table = self.network.items.table
        rest = [weight for weight in self.network.parameters() if weight is not table.weight or not table.sparse]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=job.config.learning_rate, weight_decay=job.config.weight_decay)
        ]
        if table.sparse:
            self.optimisers.append(torch.optim.SparseAdam([table.weight], lr=job.config.learning_rate))
        self.steps = 0
        self.course: list[dict[str, float]] = []
        self._load()

    @property
    def best_score(self) -> float:
        """NDCG@10 of the best validation so far."""
        return max((point["valid_ndcg_at_10"] for point in self.course), default=-1.0)

    @property
    def best_step(self) -> int:
        """Where that was."""
        return int(max(self.course, key=lambda point: point["valid_ndcg_at_10"])["step"])

    @property
    def is_stale(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        since = self.steps - self.best_step if self.course else 0
        return since >= self.job.config.patience * self.job.config.validate_every

    def train(self, batches: Iterable[Windows], course: Course) -> None:
        """Train up to the next validation, validate, and write the checkpoint."""
        config, began = self.job.config, time.monotonic()
        torch.manual_seed(config.seed * 1_000_003 + self.steps)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.steps)
        self.network.train()
        total, examples = 0.0, 0
        for batch in batches:
            total += self._step(batch, generator) * len(batch.targets)
            examples += len(batch.targets)
            course.advance()
        if not math.isfinite(total):
            raise SettingsError(
                f"the loss is no number any more after {self.steps} steps; run this again with a learning_rate "
                f"below {config.learning_rate}"
            )
        seconds, score = time.monotonic() - began, self._validate()
        if score > self.best_score:
            self.best.load_state_dict(self.average.state_dict())
        point = {"step": self.steps, "loss": total / examples, "valid_ndcg_at_10": score}
        self.course.append(point | {"examples": examples, "seconds": seconds})
        self._save()

    def _step(self, batch: Windows, generator: torch.Generator) -> float:
        config = self.job.config
        for optimiser in self.optimisers:
            optimiser.param_groups[0]["lr"] = config.learning_rate * min(1.0, (self.steps + 1) / config.warm_up)
            optimiser.zero_grad()
        loss = self.network.loss(batch, self.job.device, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimisers[0].param_groups[0]["params"], config.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.steps += 1
        share = 1 - min(config.averaging, self.steps / (self.steps + 9))  # the first weights are soon forgotten
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(weight, share)
        return float(loss.detach())

    def _validate(self) -> float:
        """NDCG@10 of the average of the weights."""
        job = self.job
        protocol = "replay" if job.examples.seen.all() else "discovery"
        scorer = NetworkScorer(job, self.average)
        ranked = rank(scorer, job.log, job.examples, protocols=(protocol,))[protocol]
        return float(ranked.values()[job.examples.slices(protocol)["all"], METRICS.index("ndcg_at_10")].mean())

    def _save(self) -> None:
        tensors = {
            f"{part}/{name}": tensor
            for part, module in (("network", self.network), ("average", self.average), ("best", self.best))
            for name, tensor in module.state_dict().items()
        }
        for number, optimiser in enumerate(self.optimisers):
            for place, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser/{number}/{place}/{name}": torch.as_tensor(v) for name, v in state.items()}
        with new_file(self.path) as draft:
            try:
                save_file(tensors, draft, metadata={"key": self.job.key, "course": json.dumps(self.course)})
            except SafetensorError as error:  # what the disk says is in its text alone
                raise OSError(EIO, str(error), str(self.path)) from error

    def _load(self) -> None:
        if not self.path.exists():
            return
        with safe_open(self.path, framework="pt") as file:
            if file.metadata()["key"] != self.job.key:
                return
            self.course = json.loads(file.metadata()["course"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for part, module in (("network", self.network), ("average", self.average), ("best", self.best)):
            module.load_state_dict({name: tensors[f"{part}/{name}"] for name in module.state_dict()})
        for number, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Any]] = {}
            for name, tensor in tensors.items():
                if name.startswith(f"optimiser/{number}/"):
                    _, _, place, what = name.split("/")
                    # SparseAdam counts its steps in Python, AdamW in a tensor.
                    value = tensor if tensor.is_floating_point() else tensor.item()
                    state.setdefault(int(place), {})[what] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
        self.steps = int(self.course[-1]["step"])


class NetworkScorer:
    """A network as an offline.evaluation.ranking.Scorer, as TowerScorer is for a tower that has been written."""

    name = "tower"

    def __init__(self, job: Job, network: Network) -> None:
        self.job = job
        self.network = network
        with torch.inference_mode():
            self.vectors = network.items().cpu().numpy()

    def embed(self, users: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, dim) of histories that end there."""
        job, history = self.job, self.job.config.history
        rows, signals, ages_s, _ = newest_known(*histories(job.log, job.row_of, users, ends, history=history),
                                                history=history)  # fmt: skip
        vectors = self.vectors[rows] * (signals > 0)[..., None]
        with torch.inference_mode():
            inputs = (torch.from_numpy(array).to(job.device) for array in (vectors, signals, ages_s))
            return self.network.tower(*inputs).cpu().numpy()

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: NDArray[np.int64]) -> NDArray[np.float32]:  # noqa: ARG002
        """(n, tracks) as offline.evaluation.ranking.Scorer says; the log is the job's."""
        return catalogue_scores(self.embed(users, ends), self.vectors, self.job.row_of)


def typical(job: Job, network: Network) -> tuple[float, ...]:
    """(dim,) where a user with no usable history is put: in the middle of all others at the end of training."""
    users = np.flatnonzero(job.split.train_end > job.log.offsets[:-1])
    if len(users) > _TYPICAL_USERS:
        users = np.random.default_rng(job.config.seed).choice(users, _TYPICAL_USERS, replace=False)
    scorer = NetworkScorer(job, network)
    mean = np.mean([scorer.embed(part, job.split.train_end[part]).mean(axis=0)
                    for part in np.array_split(users, -(-len(users) // 1000))], axis=0)  # fmt: skip
    return tuple((mean / max(float(np.linalg.norm(mean)), 1e-6)).tolist())


class Course:
    """The progress bar of a training; its end is where it would end if patience never did."""

    def __init__(self, config: TowerTraining) -> None:
        left, done, total = len(config.dropouts), 0, 0
        for until, kept in [*trials(config), (config.steps, 1)]:
            total += left * (until - done)
            left, done = kept, until
        self._progress = progress_bar()
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def at(self, candidate: Candidate) -> None:
        """Say which dropout is in training, how well it does, and how fast."""
        said = f"Training, dropout {candidate.dropout:g}"
        if candidate.course:
            last = candidate.course[-1]
            said += f", NDCG@10 {candidate.best_score:.4f}, {last['examples'] / last['seconds']:,.0f} examples/s; steps"
        self._progress.update(self._task, description=said)

    def validated(self, candidate: Candidate) -> None:
        """The same, and in a line of its own where standard error is no terminal."""
        self.at(candidate)
        if self._progress.disable:
            now = candidate.course[-1]["valid_ndcg_at_10"]
            said = f"dropout {candidate.dropout:g}, step {candidate.steps:,}: NDCG@10 {now:.4f}"
            click.echo(f"{said}, best {candidate.best_score:.4f} at step {candidate.best_step:,}", err=True)

    def advance(self) -> None:
        """A step is done."""
        self._progress.advance(self._task)


def describe(job: Job, chosen: Candidate) -> dict[str, Any]:
    """How a tower was made, for its manifest and the report."""
    return {
        "config": msgspec.to_builtins(job.config),
        "log": {"where": job.log.where, "fingerprint": job.log.fingerprint, "duplicates": job.log.duplicates},
        "split": job.split.name,
        "test_share": job.config.test_share,
        "tracks": len(job.learned),
        "dropout": chosen.dropout,
        "best_step": chosen.best_step,
        "valid_ndcg_at_10": chosen.best_score,
        "examples_per_s": sum(p["examples"] for p in chosen.course) / sum(p["seconds"] for p in chosen.course),
        "course": chosen.course,
    }
