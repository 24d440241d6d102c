"""The course of a training as people see it: a progress bar, or a line for each validation."""

from __future__ import annotations

from typing import Self

import click

from offline.progress import progress_bar
from offline.user_tower.candidate import Candidate
from offline.user_tower.settings import TowerTraining


class CourseBar:
    """The progress bar of a training, for all of its dropouts. It ends where the training would without patience.

    Example:
        with CourseBar(settings) as bar:
            bar.describe(candidate)
            candidate.train(batches, advance=bar.advance)
            bar.validated(candidate)
    """

    def __init__(self, settings: TowerTraining) -> None:
        left, done, total = len(settings.dropouts), 0, 0
        for until, kept in [*settings.trials, (settings.steps, 1)]:
            total += left * (until - done)
            left, done = kept, until
        self._progress = progress_bar()
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def describe(self, candidate: Candidate) -> None:
        """Show which dropout is in training, how well it does, and how fast."""
        text = f"Training, dropout {candidate.dropout:g}"
        if candidate.course:
            last = candidate.course[-1]
            text += f", NDCG@10 {candidate.best_score:.4f}, {last['examples'] / last['seconds']:,.0f} examples/s; steps"
        self._progress.update(self._task, description=text)

    def validated(self, candidate: Candidate) -> None:
        """Show it anew after a validation; write a line instead where standard error is no terminal."""
        self.describe(candidate)
        if self._progress.disable:
            now = candidate.course[-1]["valid_ndcg_at_10"]
            text = f"dropout {candidate.dropout:g}, step {candidate.steps:,}: NDCG@10 {now:.4f}"
            click.echo(f"{text}, best {candidate.best_score:.4f} at step {candidate.best_step:,}", err=True)

    def advance(self) -> None:
        """A step is done."""
        self._progress.advance(self._task)
