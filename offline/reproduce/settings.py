"""What can be set about a run of the protocol."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from offline.genre.settings import Count, Machine, Positive


class Protocol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a run on either set; the embedding comes from `release`, or from `log`, `store` and `tower`."""

    audio: Annotated[str, Meta(description="Folder of the set's audio.")]

    out: Annotated[
        str, Meta(description="Folder of the run; a run that was stopped goes on there when it is started again.")
    ] = "protocol"

    release: Annotated[
        str | None,
        Meta(
            description="Folder or URL of a release whose audio encoder gives the preference embedding. The permuted "
            "control trains encoders anew, and takes a log."
        ),
    ] = None

    log: Annotated[
        str | None,
        Meta(description="Listens that an audio encoder is trained on here: a Parquet file, folder, glob or URL."),
    ] = None

    store: Annotated[
        str | None, Meta(description="Folder that `features` wrote: the log-mels of the tracks of the log.")
    ] = None

    tower: Annotated[
        str | None,
        Meta(description="Folder of a user tower of the log; one is trained in the folder of the run when absent."),
    ] = None

    forgotten: Annotated[
        str | None, Meta(description="Where a dump of the topic tastewave.forgotten lies: its listens are left out.")
    ] = None

    encoder: Annotated[
        dict[str, Any],
        Meta(description="Settings of train-audio-encoder, such as encoder.steps=2000; its own defaults when absent."),
    ] = {}

    force: Annotated[
        bool,
        Meta(
            description="Take a demonstration taste space all the same, one that was learned from a made-up platform; "
            "the results are marked."
        ),
    ] = False

    permutations: Annotated[
        int,
        Meta(
            ge=20,
            description="Encoders that are trained with the artists' listeners dealt out anew; the least p that their "
            "ranks can give is 1 / (permutations + 1).",
        ),
    ] = 20

    machine: Annotated[Machine, Meta(description="The loss of the support vector machine, as in train-genre.")] = (
        "least_squares"
    )

    gammas: Annotated[
        tuple[Positive, ...],
        Meta(
            min_length=1,
            description="The kernel's gamma, as in train-genre. Of several values one is chosen within each training "
            "part, which takes 60 times as long with the grid of train-genre.",
        ),
    ] = (0.1,)

    ridges: Annotated[
        tuple[Positive, ...], Meta(min_length=1, description="The weight of the regulariser, likewise.")
    ] = (0.3,)

    folds: Annotated[
        int, Meta(ge=2, description="Folds of the cross-validation; no artist is on both sides of one.")
    ] = 10

    repeats: Annotated[Count, Meta(description="How many times the folds are drawn anew, each by a seed.")] = 5

    reference_patches: Annotated[
        Count,
        Meta(
            description="Most patches that the reference recipe learns from, since its time grows with their square: "
            "all 12,415 of GTZAN, every 8th of FMA-small."
        ),
    ] = 20_000

    replicates: Annotated[int, Meta(ge=100, description="Replicates of the bootstrap that gives the intervals.")] = 2000

    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Of all that is drawn.")] = 0

    processes: Annotated[
        Count | None, Meta(description="Processes on this machine; one for each core when absent.")
    ] = None

    ray: Annotated[
        str | None,
        Meta(
            description="Address of a Ray cluster that does the work, as ray.init takes it; needs tastewave[ray], and "
            "all folders at the same place on all nodes."
        ),
    ] = None


class ReproduceGtzan(Protocol, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline reproduce gtzan`."""

    lists: Annotated[
        str | None,
        Meta(
            description="Folder of train_filtered.txt, valid_filtered.txt, test_filtered.txt (lines such as "
            "blues/blues.00029.wav) and, where known, artists.csv (track, artist); those of the fault-filtered split, "
            "which ship with the project, when absent."
        ),
    ] = None


class ReproduceFmaSmall(Protocol, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline reproduce fma-small`."""

    metadata: Annotated[str, Meta(description="Folder of the set's metadata, which holds tracks.csv.")]
