"""Charts of pages: what the macros of charts.html.jinja draw.

They become SVG with x in per cent and y in pixels: a chart takes any width, and its text keeps its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from offline.pages.figures import count

Json = dict[str, Any]


def dots(title: str, rows: list[Json], *, bar: float | None, write: Any) -> Json:
    """A dot with its interval for each row, and a line across all at `bar`.

    Args:
        title: above the chart.
        rows: name, kind (the style of the dot), value and, where it has an interval, low and high.
        bar: of the same unit as the values.
        write: a value as text.
    """
    ticks = _ticks([0.0, *_ends(rows)])

    def x(value: float | None) -> float | None:
        return None if value is None else 2 + 96 * _share(value, ticks)

    for row in rows:
        row |= {"x": x(row["value"]), "x_low": x(row.get("low")), "x_high": x(row.get("high"))}
        row["text"] = _with_interval(row, write)
    labels = zip(map(x, ticks), _labels(ticks), strict=True)
    return {"title": title, "rows": rows, "bar": x(bar), "ticks": list(labels)}


def lines(title: str, series: list[Json], *, x_ticks: list[tuple[float, str]], mark: Json | None, y: Any) -> Json:
    """Lines through points.

    Args:
        title: above the chart.
        series: name, style and points. A point has x, a share of the width, value and, where it has an interval, low
            and high; one whose value is None leaves a gap.
        x_ticks: places as shares of the width, and what stands there.
        mark: x and text of a line from top to bottom.
        y: values that the scale holds in any case.
    """
    ticks = _ticks([*y, *(end for line in series for end in _ends(line["points"]))])

    def across(share: float) -> float:
        return 15 + 83 * share

    def down(value: float | None) -> float | None:
        return None if value is None else 190 - 165 * _share(value, ticks)

    for line in series:
        for point in line["points"]:
            point |= {"y": down(point["value"]), "y_low": down(point.get("low")), "y_high": down(point.get("high"))}
            point["x"] = across(point["x"])
        line["pieces"] = [
            (one, other)
            for one, other in zip(line["points"], line["points"][1:], strict=False)
            if one["y"] is not None and other["y"] is not None
        ]
    return {
        "title": title,
        "series": series,
        "x_ticks": [(across(share), label) for share, label in x_ticks],
        "y_ticks": list(zip(map(down, ticks), _labels(ticks), strict=True)),
        "mark": mark and mark | {"x": across(mark["x"])},
    }


def curve(title: str, course: Sequence[tuple[int, float | None]], *, chosen: int | None) -> Json:
    """A line over the steps of a training, and a mark at the chosen one."""
    first, last = course[0][0], course[-1][0]

    def share(step: float) -> float:
        return (step - first) / max(last - first, 1)

    return lines(
        title,
        [{"name": title, "style": "curve", "points": [{"x": share(step), "value": value} for step, value in course]}],
        x_ticks=[(share(tick), count(tick)) for tick in _ticks([first, last], whole=True) if first <= tick <= last],
        mark=None if chosen is None else {"x": share(chosen), "text": f"step {count(chosen)} chosen"},
        y=[],
    )


def _with_interval(leaf: Json, write: Any) -> str:
    text = write(leaf["value"])
    if leaf["value"] is None or leaf.get("low") is None or leaf.get("high") is None:
        return text
    return f"{text} ({write(leaf['low'])} to {write(leaf['high'])})"


def _ends(rows: Iterable[Json]) -> list[float]:
    ends = (row.get(key) for row in rows for key in ("value", "low", "high"))
    return [value for value in ends if value is not None]


def _ticks(values: Sequence[float], *, whole: bool = False) -> list[float]:
    """Round numbers, evenly spaced, from at or below the least value to at or above the greatest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole)
    return [round(float(tick), 9) + 0.0 for tick in locator.tick_values(low, high if high > low else low + 1)]


def _share(value: float, ticks: Sequence[float]) -> float:
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def _labels(ticks: Sequence[float]) -> list[str]:
    texts = [np.format_float_positional(tick, trim="-") for tick in ticks]
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [_short(f"{tick:.{decimals}f}") if tick else "0" for tick in ticks]


def _short(number: str) -> str:
    return re.sub(r"\b0(?=\.)", "", number)
