"""The progress bar of long jobs, with rate and time left; it disappears when the job is done."""

from __future__ import annotations

from multiprocessing import parent_process

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(
            "" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s", "progress.data.speed"
        )


def progress_bar() -> Progress:
    """A progress bar on standard error, shown only where that is a terminal, and by the first process of a job alone.

    Example:
        with progress_bar() as bar:
            task = bar.add_task("Listening", total=1000)
            bar.advance(task, 250)
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    hidden = not console.is_terminal or parent_process() is not None
    return Progress(*columns, console=console, transient=True, disable=hidden)
