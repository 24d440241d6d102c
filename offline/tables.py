"""Tables of figures among the lines that a job prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def table_lines(table: Table) -> list[str]:
    """The lines of a table as wide as standard output, with the styles that it takes."""
    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()
