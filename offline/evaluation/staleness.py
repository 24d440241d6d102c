"""What an old embedding costs: recall with embeddings that have not followed the user for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.evaluation.measures import Judged
from offline.interactions.log import InteractionLog
from offline.ranking.examples import Examples, ends_before
from offline.ranking.intervals import leaf
from offline.ranking.rank import Ranked, Scorer, rank

Int64 = NDArray[np.int64]
Json = dict[str, Any]

GAPS = {0: "fresh", 3_600_000: "1 hour", 86_400_000: "1 day", 604_800_000: "7 days"}
"""How old the embedding is, in ms and in words."""


def stale(tower: Scorer, judged: Judged, fresh: Ranked, *, advance: Callable[[int], None]) -> Json:
    """recall_at_10 in discovery with embeddings that have not followed the user for a while.

    Args:
        tower: whose.
        judged: the test.
        fresh: what it ranks with embeddings that have followed the user up to the target.
        advance: as in offline.ranking.rank.rank.

    Returns:
        By gap in ms and by users (all, those with and those without listens in the gap), a figure with its interval.
    """
    examples, by_gap = judged.examples, {}
    counted = examples.slices("discovery")["all"]
    for gap_ms in GAPS:
        ends = history_ends(judged.log, examples, gap_ms=gap_ms)
        ranked = {"discovery": fresh}
        if gap_ms:
            ranked = rank(tower, judged.log, examples, ends=ends, protocols=("discovery",), advance=advance)
        hits, moved = ranked["discovery"].values()[:, :1], ends < examples.ends
        slices = {"all": counted, "with_listens": counted & moved, "without_listens": counted & ~moved}
        replicates = judged.bootstrap.means(hits, slices)
        by_gap[str(gap_ms)] = {
            name: leaf(
                float(hits[mask].mean()) if mask.any() else np.nan, n=int(mask.sum()), replicates=replicates[name][:, 0]
            )
            for name, mask in slices.items()
        }
    return by_gap


def history_ends(log: InteractionLog, examples: Examples, *, gap_ms: int) -> Int64:
    """(n,) where histories end without the events of the gap before the target; a gap of 0 leaves all of them."""
    if not gap_ms:
        return examples.ends
    return ends_before(log, examples.positions, log.at[examples.positions] - gap_ms + 1)
