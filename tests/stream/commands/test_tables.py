import pytest
from rich.table import Column
from rich.text import Text

from stream.commands.tables import age, length, print_facts, print_table, utc


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip(" ─")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "60 min"), (7200, "2 h"), (3 * 86_400, "3 d")],
)
def test_an_age_is_told_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (125.7, "2:05"), (3700, "61:40")])
def test_a_length_is_told_in_minutes_and_seconds(seconds: float, text: str) -> None:
    assert length(seconds) == text


def test_a_time_is_told_in_utc_to_the_second_or_to_the_millisecond() -> None:
    assert utc(1795378728800) == "2026-11-22 20:18:48 UTC"
    assert utc(1795378728800, timespec="milliseconds") == "2026-11-22 20:18:48.800 UTC"
    assert utc(0, timespec="milliseconds") == "1970-01-01 00:00:00.000 UTC"


def test_a_table_shows_cells_as_they_are_under_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", Column("n", justify="right")), [("[red]a[/red] :smile:", "1"), (None, Text("12"))])
    assert printed(capsys) == [
        "  name                    n",
        "  [red]a[/red] :smile:    1",
        "                         12",
    ]


def test_facts_stand_below_one_another_without_those_that_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"track": "[t1]", "title": None, "genre": "jazz"})
    assert printed(capsys) == ["track  [t1]", "genre  jazz"]
    print_facts({"contract": "1"}, title="release r")
    assert printed(capsys) == ["release r", " contract  1"]
