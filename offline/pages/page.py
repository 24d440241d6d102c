"""A page from its template, which extends page.html.jinja and draws with charts.html.jinja."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from offline.pages.figures import count, day, plain, signed


def render_page(package: str, /, **content: Any) -> str:
    """The page of the template report.html.jinja in `package`, such as offline.genre.

    Raises:
        UndefinedError: the template asks for something that `content` lacks.
    """
    return _environment(package).get_template("report.html.jinja").render(content)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("offline.pages", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"plain": plain, "signed": signed, "count": count, "day": day, "json": json.dumps})
    return environment


def finite(value: Any) -> Any:
    """The same with None for NaN and infinities, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
