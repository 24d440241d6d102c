"""The course of a training as people see it: what is to come, and a progress bar or a line for each validation."""

from __future__ import annotations

import time
from typing import Self

from offline.progress import progress_bar
from offline.user_tower.budget import Budget
from offline.user_tower.candidate import Candidate

_WARM, _TIMED = 5, 20  # steps: the first ones are slow


class CourseBar:
    """The progress bar of a training, for all of its dropouts. It ends where the training would without patience.

    Example:
        with CourseBar(data.budget, shown=data.team.leads) as bar:
            bar.describe(candidate)
            candidate.train(batches, advance=bar.advance)
            bar.validated(candidate)

    Attributes:
        bars: to which others may be added.
    """

    def __init__(self, budget: Budget, *, shown: bool) -> None:
        self._budget, self._shown = budget, shown
        self._steps, self._since_s = 0, 0.0
        self.bars = progress_bar()
        self.bars.disable |= not shown
        self._task = self.bars.add_task("", total=budget.total)

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def describe(self, candidate: Candidate) -> None:
        """Show which dropout is in training, how well it does, and how fast."""
        text = f"Training, dropout {candidate.dropout:g}"
        if candidate.course:
            last = candidate.course[-1]
            text += f", NDCG@10 {candidate.best_score:.4f}, {last['examples'] / last['seconds']:,.0f} examples/s; steps"
        self.bars.update(self._task, description=text)

    def validated(self, candidate: Candidate) -> None:
        """Show it anew after a validation; write a line instead where standard error is no terminal."""
        self.describe(candidate)
        if self.bars.disable:
            now = candidate.course[-1]["valid_ndcg_at_10"]
            text = f"dropout {candidate.dropout:g}, step {candidate.steps:,}: NDCG@10 {now:.4f}"
            self._say(f"{text}, best {candidate.best_score:.4f} at step {candidate.best_step:,}")

    def advance(self) -> None:
        """A step is done; after a few, the steps and the time to come are stated."""
        self.bars.advance(self._task)
        self._steps += 1
        if self._steps == _WARM:
            self._since_s = time.monotonic()
        elif self._steps == _WARM + _TIMED:
            step_s = (time.monotonic() - self._since_s) / _TIMED
            self._say(f"Training: {self._budget.ahead(step_s=step_s)}.")

    def _say(self, line: str) -> None:
        if self._shown:
            self.bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
