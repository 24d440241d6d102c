"""GET /docs: the OpenAPI document as a plain page, with nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

from litestar import Request, Response, get

from stream.serve.problems import PROBLEM

_STYLE = """
:root { color-scheme: light dark; --line: #ccc; --code: #f2f2f2 }
@media (prefers-color-scheme: dark) { :root { --line: #444; --code: #2a2a2a } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
nav ul { list-style: none; padding: 0 } h2 { border-top: 1px solid var(--line); padding-top: 1rem; font-size: 1.1rem }
code { background: var(--code); padding: .1rem .25rem; border-radius: .2rem; overflow-wrap: break-word }
a code { color: inherit } table { border-collapse: collapse; margin: 1rem 0 }
caption { text-align: left; font-weight: 600 } td { padding: .15rem 1rem .15rem 0; vertical-align: top }
td:first-child { min-width: 5rem; white-space: nowrap }
"""


def plain_page(page: str, *, style: str) -> Response[bytes]:
    """A page that loads and runs nothing, and says so to the browser (Content-Security-Policy).

    Args:
        page: HTML, with this style in it and no other.
        style: what stands in its style element.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(page.encode(), media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})


def documentation_route(*, schema_path: str) -> Any:
    """The route; it shows the document of the application that it is part of."""

    @get("/docs", include_in_schema=False)
    async def docs(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The page."""
        return plain_page(_page(request.app.openapi_schema.to_schema(), schema_path), style=_STYLE)

    return docs


def _page(document: dict[str, Any], schema_path: str) -> str:
    routes = [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "responses" in operation
    ]
    listed = "".join(
        f'<li><a href="#{escape(operation["operationId"])}"><code>{escape(name)}</code></a>'
        for name, operation in routes
    )
    info = document["info"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style><h1>{escape(info['title'])}</h1>"
        f"<p>{_text(info.get('description'))}</p><p>Refusals are problem details (RFC 9457).</p>"
        f'<p>The same for programs: <a href="{schema_path}">{schema_path}</a> (OpenAPI 3.1).</p>'
        f"<nav><ul>{listed}</ul></nav>" + "".join(_operation(name, operation) for name, operation in routes)
    )


def _operation(name: str, operation: dict[str, Any]) -> str:
    parameters = [
        (f"<code>{escape(one['name'])}</code>", f"{_text(one.get('description'))} <small>({one['in']})</small>")
        for one in operation.get("parameters", ())
    ]
    if body := operation.get("requestBody"):
        (schema,) = (content["schema"] for content in body["content"].values())
        parameters += [
            (f"<code>{escape(field)}</code>", f"{_text(told.get('description'))} <small>(JSON body)</small>")
            for field, told in schema["properties"].items()
        ]
    answers = [
        (status, _text(answer.get("description")) + _formats(answer.get("content", {})))
        for status, answer in operation["responses"].items()
    ]
    token = "<p>Needs the bearer token.</p>" if operation.get("security") == [{"bearer": []}] else ""
    return (
        f'<h2 id="{escape(operation["operationId"])}"><code>{escape(name)}</code></h2>'
        f"<p>{_text(operation.get('description'))}</p>{token}"
        + _table("Parameters", parameters)
        + _table("Answers", answers)
    )


def _table(caption: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return f"<table><caption>{caption}</caption>{''.join(f'<tr><td>{key}<td>{told}' for key, told in rows)}</table>"


def _formats(content: dict[str, Any]) -> str:
    """The media types of an answer; none of a refusal, since all have the same."""
    kinds = [f"<code>{escape(kind)}</code>" for kind in content if kind != PROBLEM]
    return f"<br>{' '.join(kinds)}" if kinds else ""


def _text(text: str | None) -> str:
    """Text whose words between backticks are code."""
    parts = escape(text or "").split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
