"""What an evaluation measures: every tower and every floor on the same examples, the floors fitted first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from offline.evaluation.floors import FLOORS, Training, fit_floor
from offline.evaluation.measures import Judged, Measured, against_best
from offline.evaluation.scorers import TowerScorer
from offline.evaluation.staleness import GAPS, stale
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split
from offline.progress import progress_bar
from offline.ranking.examples import PROTOCOLS, Examples, History
from offline.ranking.rank import Ranked

Json = dict[str, Any]

Measures = dict[str, dict[History, dict[str, Measured]]]
"""By name of a tower or floor, by history, by protocol."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What was measured.

    Attributes:
        models, floors: metrics.
        fresh: by name of each of them its ranks in discovery, with histories before the moment.
        staleness: of the towers.
        floor_settings: by floor and protocol what was chosen on validation.
    """

    models: Measures = field(default_factory=dict)
    floors: Measures = field(default_factory=dict)
    fresh: dict[str, Ranked] = field(default_factory=dict)
    staleness: Json = field(default_factory=dict)
    floor_settings: Json = field(default_factory=dict)

    def compared(self, history: History) -> Json:
        """Models, floors, and the former against the best of the latter."""
        models, floors = ({name: of[history] for name, of in part.items()} for part in (self.models, self.floors))
        return {
            "models": {name: {p: part.leaves for p, part in measured.items()} for name, measured in models.items()},
            "floors": {name: {p: part.leaves for p, part in measured.items()} for name, measured in floors.items()},
            "against_best_floor": {
                name: {
                    protocol: against_best(
                        measured[protocol], {floor: parts[protocol] for floor, parts in floors.items()}
                    )
                    for protocol in PROTOCOLS
                }
                for name, measured in models.items()
            },
        }


def measure_all(judged: Judged, towers: Sequence[TowerScorer], *, seed: int) -> Results:
    """Measure the towers, their staleness, and the floors."""
    log, split, results = judged.log, judged.split, Results()
    kinds = [kind for kind in FLOORS if kind.fits(log)]
    training, validation = Training.of(log, split), validation_examples(log, split, towers, seed=seed)
    with progress_bar() as progress:
        of_tower = len(PROTOCOLS) + len(GAPS) - 1
        total = len(judged.examples.positions) * (len(towers) * of_tower + len(kinds) * len(PROTOCOLS))
        task = progress.add_task("", total=total)
        advance = partial(progress.advance, task)
        for tower in towers:
            progress.update(task, description=f"Ranking by {tower.name}")
            ranked = judged.rank(dict.fromkeys(PROTOCOLS, tower), advance=advance)
            results.models[tower.name] = judged.measure(ranked)
            results.fresh[tower.name] = ranked["before_moment"]["discovery"]
            progress.update(task, description=f"Staleness of {tower.name}")
            results.staleness[tower.name] = stale(tower, judged, results.fresh[tower.name], advance=advance)
        for kind in kinds:
            progress.update(task, description=f"Fitting {kind.name}")
            floor = fit_floor(kind, training, validation)
            results.floor_settings[kind.name] = {protocol: dict(floor[protocol].settings) for protocol in PROTOCOLS}
            progress.update(task, description=f"Ranking by {kind.name}")
            ranked = judged.rank(floor, advance=advance)
            results.floors[kind.name] = judged.measure(ranked)
            results.fresh[kind.name] = ranked["before_moment"]["discovery"]
    return results


def validation_examples(log: InteractionLog, split: Split, towers: Sequence[TowerScorer], *, seed: int) -> Examples:
    """What the settings of the floors are chosen on: as many examples as those of the towers were."""
    most = max(tower.training["config"]["validation_examples"] for tower in towers)
    positions = split.valid
    if len(positions) > most:
        positions = np.sort(np.random.default_rng(seed).choice(positions, most, replace=False))
    return Examples.of(log, split, positions)
