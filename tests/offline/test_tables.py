from rich import box
from rich.table import Table

from offline.tables import table_lines


def test_a_table_becomes_lines_without_styles_where_there_is_no_terminal():
    table = Table("", "Recall@10", box=box.SIMPLE_HEAD)
    table.add_row("mean", ".091", style="bold")
    assert [line.strip() for line in table_lines(table) if line.strip(" ─")] == ["Recall@10", "mean   .091"]
