"""What can be set in the training of a user tower."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from models.history import CountingRule
from offline.interactions.splits import SplitName

Pooling = Literal["mean", "attention"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

Device = Literal["auto", "cpu", "cuda"]

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, lt=1.0)]
Rate = Annotated[float, Meta(gt=0.0)]


class TowerTraining(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `tastewave-offline train-user-tower`.

    Example:
        settings = TowerTraining(log="listens", out="towers/mean", history=100)
    """

    log: Annotated[str, Meta(description="Parquet file, folder, glob or fsspec URL of listens.")]

    out: Annotated[
        str, Meta(description="Folder of the trained tower; beside it stands <out>.partial until the training is done.")
    ]

    forgotten: Annotated[
        str | None,
        Meta(
            description="Dump of the topic tastewave.forgotten: a Parquet file, a folder of them, or an fsspec URL. "
            "Listens of who and what was forgotten are left out."
        ),
    ] = None

    held_out: Annotated[
        str | None,
        Meta(
            description="List of tracks that `hold-out` wrote: they get no vector, and the training does not look at "
            "their listens."
        ),
    ] = None

    split: Annotated[
        SplitName,
        Meta(description="What is held back: the end of the log's time, or the last targets of each user."),
    ] = "temporal"

    test_share: Annotated[
        float,
        Meta(
            gt=0.0,
            lt=0.5,
            description="Of the log's time, in a temporal split: so much for the test, and as much before it for "
            "validation.",
        ),
    ] = 0.1

    counting: Annotated[CountingRule, Meta(description="Which listens count, and for what.")] = CountingRule()

    pooling: Annotated[
        Pooling,
        Meta(description="mean: learned means of the history, as in the paper; attention: two causal blocks."),
    ] = "mean"

    history: Annotated[int, Meta(ge=3, description="Newest listens that an embedding is made of.")] = 50

    dim: Annotated[Count, Meta(description="Dimensions of taste space.")] = 40

    score: Annotated[
        Literal["cosine", "dot"],
        Meta(description="Score of a track: cosine, or dot for `ladder` alone; deployed towers have unit vectors."),
    ] = "cosine"

    dropouts: Annotated[
        tuple[Share, ...],
        Meta(min_length=1, description="Dropouts that are tried; the best in validation NDCG@10 is kept."),
    ] = (0.1, 0.2, 0.3, 0.5)

    trial_shares: Annotated[
        tuple[Annotated[float, Meta(gt=0.0, le=1.0)], ...],
        Meta(
            min_length=1,
            description="Shares of the most steps after which the worse half of the dropouts is given up; after the "
            "last of them, all but the best. The last one is late, since a low dropout learns faster at first.",
        ),
    ] = (0.1, 0.4)

    epochs: Annotated[
        Count, Meta(description="Most passes over the log; the training usually ends earlier, by patience.")
    ] = 10

    steps: Annotated[
        Count, Meta(description="Steps that a small log may take instead, where they are more than its epochs have.")
    ] = 7_000

    validate_every: Annotated[
        Count,
        Meta(
            description="Steps from one validation to the next, or a fifth of an epoch where that is more; a killed "
            "training goes on from the last one."
        ),
    ] = 200

    patience: Annotated[
        Count, Meta(description="Validations without a better NDCG@10 after which the training ends.")
    ] = 6

    validation_examples: Annotated[
        Count, Meta(description="Most examples of a validation; where there are more, a sample is drawn.")
    ] = 5_000

    loss: Annotated[
        Literal["softmax", "gbce"],
        Meta(description="softmax: full below full_softmax_tracks, sampled above; gbce: of gSASRec."),
    ] = "softmax"

    full_softmax_tracks: Annotated[
        Count,
        Meta(
            description="Tracks above which the softmax is sampled: with so many, a step with all of them takes one "
            "and a half times as long on a CPU."
        ),
    ] = 30_000

    negatives: Annotated[
        int, Meta(ge=2, description="Negatives of a sampled loss, shared by all examples of a step.")
    ] = 4096

    calibration: Annotated[float, Meta(ge=0.0, le=1.0, description="Calibration t of the gBCE loss.")] = 0.75

    stride: Annotated[
        Count,
        Meta(
            description="Positions of a window that train, with mean; before them a window holds the history of the "
            "first. With attention, whose blocks look back one after the other, a window is as long as a history and "
            "its later half trains."
        ),
    ] = 150

    positions: Annotated[
        Count, Meta(description="Positions that train in a step; the step takes as many windows as they fill.")
    ] = 4_800

    learning_rate: Annotated[Rate, Meta(description="Learning rate of AdamW.")] = 2e-3

    warm_up: Annotated[
        Count,
        Meta(description="Steps until the learning rate is reached; small logs are learned during them, at low rates."),
    ] = 1_500

    weight_decay: Annotated[float, Meta(ge=0.0, description="Weight decay of AdamW.")] = 0.01

    clip: Annotated[Rate, Meta(description="Largest norm of a step's gradient.")] = 1.0

    averaging: Annotated[
        Share, Meta(description="Decay, per step, of the average of the weights that is validated and kept.")
    ] = 0.998

    device: Annotated[Device, Meta(description="What trains; auto: a GPU where PyTorch finds one.")] = "auto"

    seed: Annotated[
        int,
        Meta(ge=0, lt=2**31, description="Equal seeds give equal towers on one machine; on a GPU, nearly equal ones."),
    ] = 0

    processes: Annotated[
        Count | None,
        Meta(
            description="Dropouts that are tried side by side, each in a process of its own with one thread, which "
            "reads the log for itself; one for each core where it is null. With 1, this process trains them one after "
            "another, with all cores."
        ),
    ] = 1

    ray: Annotated[
        str | None,
        Meta(
            description="Address of a Ray cluster that does this, as ray.init takes it; needs tastewave[ray], and the "
            "log and the folder of OUT_DIR at the same place on all nodes."
        ),
    ] = None

    @property
    def trains(self) -> int:
        """Positions of a window that train."""
        return self.stride if self.pooling == "mean" else max(1, self.history // 2)

    @property
    def context(self) -> int:
        """Listens of a window before those."""
        return self.history - (1 if self.pooling == "mean" else self.trains)


class Ladder(TowerTraining, frozen=True, kw_only=True):
    """Settings of `tastewave-offline ladder`, for the training of each rung; score, dim and history it sets itself."""

    out: Annotated[str, Meta(description="Folder of ladder.json, and of the checkpoints of each rung.")]

    processes: Annotated[
        Count | None,
        Meta(
            description="Rungs that train side by side, each in a process with one thread; one for each core when "
            "absent."
        ),
    ] = None
