"""What commands print: tables, facts about one thing, progress, and times as people read them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

_AGES = (("d", 86_400), ("h", 3600), ("min", 60))


def print_table(
    head: Sequence[str | Column], rows: Iterable[Sequence[str | Text | None]], *, pad_edge: bool = True
) -> None:
    """Print rows under a head. A plain string is shown as it is, whatever brackets are in it.

    print_table(("partition", Column("events", justify="right")), [("0", "12")])
    """
    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=pad_edge)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell or "") for cell in row))
    Console().print(table)


def progress_bar(*, shown: bool = True) -> Progress:
    """A bar on standard error, which is gone at the end of its `with` block."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # else rich would print the lines of --json to standard error, where the bar is
        disable=not shown,
    )


def print_facts(facts: Mapping[str, str | None], *, title: str | None = None) -> None:
    """Print a name and its value on each line, under a title where there is one; facts that are None are left out."""
    table = Table(
        title=title, title_justify="left", show_header=False, box=None, padding=(0, 1) if title else (0, 2, 0, 0)
    )
    table.add_column(style="bold" if title else "dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, Text(value))
    Console().print(table)


def age(seconds: float) -> str:
    """How long ago, in the largest unit that fits: 3 d, 2 h, 5 min, 7 s."""
    for unit, length_s in _AGES:
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def length(seconds: float) -> str:
    """The length of a track, or a place in it: 2:05, 61:40."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def utc(milliseconds: int, *, timespec: str = "seconds") -> str:
    """A time of the contract (milliseconds since 1970), as 2026-11-22 20:18:48 UTC."""
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, tz=datetime.UTC)
    return moment.isoformat(sep=" ", timespec=timespec).replace("+00:00", " UTC")
