"""How long a training lasts: its steps, which follow the log, and whether it had time enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from offline.user_tower.checkpoint import Course
from offline.user_tower.settings import TowerTraining

_RISE = 0.01
"""What the last validations have to bring, as a share of the best before them, for the training to be rising."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most steps of a training.

    Attributes:
        epoch_steps: steps of an epoch.
        steps: most steps of the dropout that is kept; a validation ends them.
        validate_every: steps from one validation to the next.
        trials: of each trial the step that ends it, and how many dropouts are kept then.
        total: most steps of all dropouts together.

    Example:
        budget = Budget.of(TowerTraining(log="listens", out="tower"), epoch_steps=20_833)
        budget.steps, budget.validate_every  # 208,350 and 4,167
    """

    epoch_steps: int
    steps: int
    validate_every: int
    trials: tuple[tuple[int, int], ...]
    total: int

    @classmethod
    def of(cls, settings: TowerTraining, *, epoch_steps: int) -> Budget:
        """The budget of a training whose epochs have so many steps."""
        every = max(settings.validate_every, math.ceil(epoch_steps / 5))
        validations = math.ceil(max(settings.steps, settings.epochs * epoch_steps) / every)
        steps, kept = validations * every, len(settings.dropouts)
        ends = [math.ceil(share * validations) * every for share in sorted(settings.trial_shares)]
        trials = [(until, kept := 1 if until == ends[-1] else -(-kept // 2)) for until in ends]
        courses = [(0, len(settings.dropouts)), *trials, (steps, 1)]
        return cls(
            epoch_steps=epoch_steps,
            steps=steps,
            validate_every=every,
            trials=tuple(trials),
            total=sum(left * (until - begin) for (begin, left), (until, _) in pairwise(courses)),
        )

    def ahead(self, *, step_s: float) -> str:
        """The sentence of what is to come, where a step takes so many seconds."""
        return (
            f"at most {self.steps:,} steps, {self.steps / self.epoch_steps:,.1f} epochs of {self.epoch_steps:,}, and "
            f"{self.total:,} with those of the dropouts that are given up: {_time(self.total * step_s)} at "
            f"{1 / step_s:,.1f} steps/s without validations; it ends earlier when these bring nothing better"
        )


def ended(course: Course, *, epoch_steps: int, patience: int) -> str:
    """The sentence of how a training ended: whether it had time enough.

    Its last validations tell, as many as patience looks at, or half of all where these are fewer: whether they brought
    more than 1 % to the best before them.
    """
    steps, scores = int(course[-1]["step"]), [point["valid_ndcg_at_10"] for point in course]
    after = f"after {steps:,} steps, {steps / epoch_steps:,.1f} epochs"
    if len(scores) == 1:
        return f"the training ended with its first validation, {after}; try more epochs"
    last = max(1, min(patience, len(scores) // 2))
    gain = max(scores[-last:]) / max(1e-9, *scores[:-last]) - 1
    brought = f"the last {last} of its {len(scores)} validations brought {gain:+.1%}"
    if gain > _RISE:
        return f"the validation was still rising when the training stopped, {after}: {brought}; try more epochs"
    return f"the validation had levelled off {after}: {brought}, so more steps are not what this tower lacks"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{math.ceil(seconds / 60)} minutes"
