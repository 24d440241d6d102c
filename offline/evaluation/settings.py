"""What can be set about an evaluation; imports no torch, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from models.history import CountingRule
from offline.interactions.splits import SplitName
from offline.ranking.examples import MAX_EXAMPLES


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline evaluate`."""

    log: Annotated[
        str,
        Meta(
            description="The interaction log: a Parquet file, a folder of them, a glob, or an fsspec URL of one of "
            "these."
        ),
    ]

    out: Annotated[str, Meta(description="Folder of metrics.json and report.html; made where missing.")]

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
            description="List of tracks that `hold-out` wrote and the towers were trained without: nobody is asked for "
            "them, as the towers cannot name them."
        ),
    ] = None

    towers: Annotated[
        tuple[str, ...],
        Meta(
            description="Folder of a trained tower; may be given more than once. Without one, the command first trains "
            "a tower of each pooling, in the folder towers of OUT_DIR."
        ),
    ] = ()

    split: Annotated[SplitName, Meta(description="temporal or leave-last; towers have to be trained on the same.")] = (
        "temporal"
    )

    test_share: Annotated[
        float, Meta(gt=0.0, lt=0.5, description="Share of the log's time that is judged (temporal).")
    ] = 0.1

    counting: Annotated[CountingRule, Meta(description="Which listens count, and for what.")] = CountingRule()

    max_examples: Annotated[
        int,
        Meta(ge=1, description="Where the test has more, users are drawn until their examples are about as many."),
    ] = MAX_EXAMPLES

    replicates: Annotated[int, Meta(ge=100, description="Replicates of the bootstrap that gives the intervals.")] = 1000

    seed: Annotated[int, Meta(ge=0, description="Random seed that draws users and replicates.")] = 0

    @property
    def towers_folder(self) -> Path:
        """Where a tower of each pooling lies when no tower is given."""
        return Path(self.out, "towers")
