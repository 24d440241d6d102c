"""How the figures of a tower move with the time since it was trained, beside those of the floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from offline.evaluation.measures import Judged
from offline.evaluation.scorers import TowerScorer
from offline.ranking.intervals import leaf
from offline.ranking.rank import METRICS, Ranked

Json = dict[str, Any]

PARTS = 4
"""Of the time of the test, equally long."""

DRIFTS = ("recall_at_10", "ndcg_at_10")
"""The metrics that are followed."""


def drift(judged: Judged, towers: Sequence[TowerScorer], ranked: Mapping[str, Ranked]) -> Json | None:
    """Figures in discovery for each part of the time of a temporal test; None for a test of another split.

    Args:
        judged: the test.
        towers: that are judged.
        ranked: what each tower and each floor makes of the examples in discovery.

    Returns:
        `parts`: from_ms and to_ms of each. `figures`: by tower or floor and metric, a figure with its interval for
        each part. `trained_until_ms`: by tower, None where its manifest does not tell.
    """
    if judged.split.test_from_ms is None:
        return None
    at = judged.log.at[judged.examples.positions]
    borders = np.linspace(judged.split.test_from_ms, int(judged.log.at.max()) + 1, PARTS + 1).astype(np.int64)
    counted = judged.examples.slices("discovery")["all"]
    slices = {str(part): counted & (at >= borders[part]) & (at < borders[part + 1]) for part in range(PARTS)}
    columns = [METRICS.index(metric) for metric in DRIFTS]
    figures: Json = {}
    for name, of_name in ranked.items():
        values = of_name.values()[:, columns]
        replicates = judged.bootstrap.means(values, slices)
        figures[name] = {
            metric: [
                leaf(
                    float(values[mask, column].mean()) if mask.any() else np.nan,
                    n=int(mask.sum()),
                    replicates=replicates[part][:, column],
                )
                for part, mask in slices.items()
            ]
            for column, metric in enumerate(DRIFTS)
        }
    return {
        "parts": [{"from_ms": int(begin), "to_ms": int(end)} for begin, end in pairwise(borders)],
        "figures": figures,
        "trained_until_ms": {tower.name: tower.trained_until_ms for tower in towers},
    }
