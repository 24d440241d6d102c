"""GET /runbook: the runbook of deploy/, so that it can be read where nothing else can be reached."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Response, get

from stream.serve.documentation import plain_page

_STYLE = """
body { font: 14px/1.6 ui-monospace, monospace; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
pre { font: inherit; white-space: pre-wrap; overflow-wrap: anywhere } h1, h2, h3 { font: inherit; font-weight: bold }
:target { border-left: 3px solid #2563eb; padding-left: 1rem }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } }
"""


class Advice(msgspec.Struct, frozen=True):
    """What the runbook says of a dead-letter reason, in Markdown."""

    meaning: str
    advice: str


@cache
def _text() -> str:
    return files("deploy").joinpath("runbook.md").read_text()


@cache
def advice() -> dict[str, Advice]:
    """What the runbook says of each dead-letter reason."""
    section = _text().partition("\n### 7. Dead letters\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return {reason: Advice(meaning, what_to_do) for reason, meaning, what_to_do in rows}


def runbook_route() -> Any:
    """The route."""

    @get("/runbook", include_in_schema=False)
    async def runbook() -> Response[bytes]:
        """The runbook as it is written, each section with the anchor that links name."""
        sections = "".join(map(_section, re.split(r"^(?=##+ )", _text(), flags=re.MULTILINE)))
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>Runbook of tastewave</title><style>{_STYLE}</style><main>{sections}</main>"
        )
        return plain_page(page, style=_STYLE)

    return runbook


def _section(markdown: str) -> str:
    """A section from its heading on; its anchor is the one that GitHub gives it."""
    heading, _, body = markdown.partition("\n")
    signs, _, words = heading.partition(" ")
    anchor = re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")
    level = len(signs)
    return f'<h{level} id="{escape(anchor)}">{escape(words)}</h{level}><pre>{escape(body)}</pre>'
