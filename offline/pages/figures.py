"""How figures are written: in the terminal, in sentences and on pages."""

from __future__ import annotations

from typing import Literal

import numpy as np


def plain(value: float | None) -> str:
    """A metric with three decimals: .083."""
    return "no example" if value is None else f"{value:.3f}".removeprefix("0")


def signed(value: float | None) -> str:
    """A difference of two metrics with its sign: +.008."""
    return "no example" if value is None else f"{value:+.3f}".replace("0.", ".", 1)


def count(number: float) -> str:
    """A number of things, in groups of three digits: 12,345."""
    return f"{number:,.0f}"


def day(ms: int) -> str:
    """The UTC day of a time: 2026-05-01. Any int64 has one, years with more than four digits too."""
    return _utc(ms, "D")


def moment(ms: int) -> str:
    """A time to the second, UTC: 2026-05-01T12:30:00Z."""
    return f"{_utc(ms, 's')}Z"


def _utc(ms: int, unit: Literal["D", "s"]) -> str:
    return str(np.datetime_as_string(np.datetime64(int(ms), "ms"), unit=unit))
