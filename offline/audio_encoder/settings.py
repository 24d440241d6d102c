"""What can be set in the training of an audio encoder."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.mel import ENCODER, MelConfig

METRICS, REPORT = "metrics.json", "report.html"
"""Beside an encoder: how well it finds the listeners of tracks that were held out, for programs and for people."""

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0.0)]


class EncoderTraining(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline train-audio-encoder`."""

    store: Annotated[str, Meta(description="Folder that `features` wrote: the log-mels of the tracks.")]

    tower: Annotated[str, Meta(description="Folder of the user tower that says where people are; it stays as it is.")]

    log: Annotated[str, Meta(description="Parquet file, folder, glob or fsspec URL of listens.")]

    out: Annotated[str, Meta(description="Folder of the encoder; one that is there is replaced.")]

    held_out: Annotated[
        str,
        Meta(
            description="List of tracks that `hold-out` wrote: they judge the encoder, and choose the step that is "
            "kept. The tower should have been trained without them."
        ),
    ]

    forgotten: Annotated[
        str | None,
        Meta(
            description="Dump of the topic tastewave.forgotten: a Parquet file, a folder of them, or an fsspec URL. "
            "Listens of who and what was forgotten are left out."
        ),
    ] = None

    name: Annotated[str, Meta(min_length=1, description="What the encoder is called.")] = "audio encoder"

    licence: Annotated[
        str, Meta(min_length=1, description="Licence of its weights; `tastewave release show` prints it.")
    ] = "the platform's own"

    mel: Annotated[MelConfig, Meta(description="Spectrogram that the store has to have, as `features` was told.")] = (
        ENCODER
    )

    loss: Annotated[
        Literal["hinge", "infonce"],
        Meta(
            description="hinge: the liked track is to be closer to the person than a disliked one, by the margin, as "
            "in the paper; infonce: closer than all tracks that others of the batch liked."
        ),
    ] = "hinge"

    margin: Annotated[float, Meta(ge=0.0, le=2.0, description="Of hinge: by how much, in cosine.")] = 0.2

    negatives: Annotated[Count, Meta(description="Of hinge: disliked tracks for each liked one.")] = 1

    temperature: Annotated[Positive, Meta(description="Of infonce: what cosines are divided by.")] = 0.1

    max_examples: Annotated[
        Count, Meta(description="Liked tracks that are learned from; where a log has more, they are drawn.")
    ] = 1_000_000

    batch: Annotated[Count, Meta(description="Liked tracks of a step.")] = 128

    crop_s: Annotated[
        float,
        Meta(ge=1.0, le=600.0, description="What a step hears of a window, s; the whole one where it is shorter."),
    ] = 10.0

    learning_rate: Annotated[Positive, Meta(description="Of AdamW at the begin; it falls to 0 as a cosine.")] = 1e-3

    steps: Annotated[Count, Meta(description="Most steps.")] = 4000

    validate_every: Annotated[Count, Meta(description="Steps from one validation to the next.")] = 200

    patience: Annotated[Count, Meta(description="Validations without a better one that end the training.")] = 5

    controls: Annotated[
        bool,
        Meta(
            description="Also train, for half the steps, on tracks whose sounds were exchanged: what such an encoder "
            "reaches is no knowledge of sound."
        ),
    ] = True

    seed: Annotated[int, Meta(ge=0, description="Of all that is drawn.")] = 0

    device: Annotated[
        Literal["auto", "cpu", "cuda"], Meta(description="What trains; auto: a GPU where PyTorch finds one.")
    ] = "auto"
