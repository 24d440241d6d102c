"""What can be set in the fine-tuning of a user tower."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from offline.user_tower.settings import Count, Device, Rate


class FineTuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline fine-tune-tower`. All else is as in the training of the tower."""

    tower: Annotated[str, Meta(description="Folder of the user tower; it stays as it is.")]

    encoder: Annotated[str, Meta(description="Folder of the audio encoder that was trained against this tower.")]

    log: Annotated[str, Meta(description="The listens that the tower was trained on.")]

    features: Annotated[str, Meta(description="Folder that `features` wrote, which the encoder was trained on.")]

    held_out: Annotated[
        str, Meta(description="List of tracks that `hold-out` wrote, which tower and encoder were trained without.")
    ]

    out: Annotated[
        str, Meta(description="Folder of the new tower; beside it stands <out>.partial until the training is done.")
    ]

    forgotten: Annotated[
        str | None, Meta(description="Dump of the topic tastewave.forgotten, as the tower's training had it.")
    ] = None

    item_dropout: Annotated[
        float,
        Meta(
            gt=0.0,
            lt=1.0,
            description="Share of the tracks that stand in histories by their sound instead of their learned vector; "
            "others are drawn in each step.",
        ),
    ] = 0.15

    learning_rate: Annotated[Rate, Meta(description="Learning rate of AdamW.")] = 5e-4

    warm_up: Annotated[Count, Meta(description="Steps until the learning rate is reached.")] = 100

    epochs: Annotated[Count, Meta(description="Most passes over the log.")] = 2

    steps: Annotated[
        Count, Meta(description="Steps that a small log may take instead, where they are more than its epochs have.")
    ] = 1_000

    validate_every: Annotated[
        Count, Meta(description="Steps from one validation to the next, or a fifth of an epoch where that is more.")
    ] = 100

    patience: Annotated[
        Count, Meta(description="Validations without a better NDCG@10 after which the training ends.")
    ] = 4

    processes: Annotated[
        Count | None, Meta(description="Processes that hear tracks on this machine; one for each core when absent.")
    ] = None

    ray: Annotated[
        str | None,
        Meta(description="Address of a Ray cluster that hears them, as ray.init takes it; needs tastewave[ray]."),
    ] = None

    device: Annotated[Device, Meta(description="What trains; auto: a GPU where PyTorch finds one.")] = "auto"

    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Of all that is drawn.")] = 0
