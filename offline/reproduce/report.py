"""The results as a terminal shows them, and as a page of markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from offline.pages.figures import plain, signed
from offline.reproduce.results import ALONE, LABELS, NOISE, OF_RANDOM, PERMUTED, Results, Row
from offline.reproduce.significance import Estimate
from offline.tables import table_lines

_HEARS_INSTEAD = {
    ALONE: "the embedding alone",
    OF_RANDOM: "a random encoder",
    NOISE: "noise",
}


def shown(results: Results) -> list[str]:
    """What the command prints: the table, and what it says."""
    table = Table(title=results.set, title_justify="left")
    for number, head in enumerate(_heads(results)):
        table.add_column(head, justify="left" if number == 0 else "right")
    for row in results.rows:
        table.add_row(*_cells(results, row))
    return [*_caveat(results), *table_lines(table), *sentences(results)]


def markdown(results: Results) -> str:
    """report.md."""
    heads = _heads(results)
    table = [heads, ["---"] * len(heads), *(_cells(results, row) for row in results.rows)]
    lines = [
        f"# The protocol of Chen & Liang on {results.set}",
        "",
        *(f"> **{line}**\n" for line in _caveat(results)),
        *(f"| {' | '.join(cells)} |" for cells in table),
        "",
        "`audio` is a head that hears the max_pool of a track, `preference` the preference embedding, `permuted` that",
        "of an encoder whose artists had exchanged their listeners, `random` that of an untrained one, `noise` as many",
        "columns of noise. In `folds`, no artist is on both sides. Brackets hold 95 % intervals, by a bootstrap over",
        "artists and seeds; of the permuted encoders, the least and the greatest accuracy.",
        "",
        *(f"- {line}" for line in sentences(results)),
        "",
        "## The tracks",
        "",
        *(f"- {note}" for note in results.notes),
        f"- {results.tracks:,} tracks of {results.artists:,} artists were heard, in {len(results.genres)} genres: "
        f"{', '.join(results.genres)}",
    ]
    return "\n".join(lines) + "\n"


def _caveat(results: Results) -> list[str]:
    if not results.demonstration:
        return []
    return [
        "A demonstration: the taste space was learned from a made-up platform, and the figures say nothing of "
        f"preferences. {results.demonstration}"
    ]


def _heads(results: Results) -> list[str]:
    return ["recipe", "published", *results.rows[0].splits, "folds"]


def _cells(results: Results, row: Row) -> list[str]:
    label = LABELS[row.name]
    if row.name == PERMUTED and results.permuted:
        label += f" ({len(results.permuted.accuracies)})"
    published = "" if row.published is None else f"{row.published:.4f}".removeprefix("0")
    return [label, published, *map(_estimate, row.splits.values()), _estimate(row.folds)]


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{plain(estimate.value)} ({plain(estimate.low)} to {plain(estimate.high)})"


def sentences(results: Results) -> Iterator[str]:
    """What the figures say, the primary test first."""
    primary, alike = results.primary, "both recipes are right on the same tracks"
    said = "gains" if primary.low > 0 else "loses" if primary.high < 0 else "neither surely gains nor loses"
    yield (
        f"Primary test, folds between artists: the preference embedding {said}: {signed(primary.value)}, 95 % interval "
        f"{signed(primary.low)} to {signed(primary.high)}, {results.tracks:,} tracks of {results.artists:,} artists; "
        + (
            alike
            if primary.detectable is None
            else f"the smallest difference that these would show with a chance of 80 % is {plain(primary.detectable)}"
        )
        + "."
    )
    figures = results.published
    yield (
        f"The paper's difference is {signed(figures.preference - figures.without)}, on one split "
        f"({results.published_split})."
    )
    for name, test in results.splits.items():
        smallest = (
            f"the smallest difference that {test.tracks:,} tracks would show is {plain(test.detectable)}"
            if test.detectable is not None
            else alike
        )
        yield (
            f"Split {name}: with the embedding {test.gained} tracks more and {test.lost} fewer are right, "
            f"{signed((test.gained - test.lost) / test.tracks)}, McNemar's exact p {test.p:.3g}; {smallest}."
        )
    if permuted := results.permuted:
        yield (
            f"{permuted.reached} of {len(permuted.accuracies)} encoders whose artists had exchanged their listeners "
            f"reach the true one: p {permuted.p:.3f} by rank."
        )
    else:
        yield (
            "No permuted control: it trains encoders anew, which takes listens; name --log and --store in the place of "
            "--release."
        )
    for name, difference in results.against.items():
        yield (
            f"Against {_HEARS_INSTEAD[name]}: {signed(difference.value)} ({signed(difference.low)} to "
            f"{signed(difference.high)})."
        )
