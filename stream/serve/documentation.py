"""GET /docs: the OpenAPI document as a plain page, with nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

from litestar import Request, Response, get

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; font-size: 1.1rem } code, pre { background: #f4f4f4 }
pre { padding: .6rem; overflow-x: auto } table { border-collapse: collapse } td { padding: .1rem .8rem .1rem 0;
vertical-align: top } @media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd }
code, pre { background: #2a2a2a } }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of the page: it loads and runs nothing."""


def documentation_route(*, schema_path: str) -> Any:
    """The route; it shows the document of the application that it is part of."""

    @get("/docs", include_in_schema=False)
    async def docs(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The page."""
        page = _page(request.app.openapi_schema.to_schema(), schema_path)
        return Response(
            page.encode(), media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY}
        )

    return docs


def _page(document: dict[str, Any], schema_path: str) -> str:
    routes = [
        _operation(method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "responses" in operation
    ]
    info = document["info"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style><h1>{escape(info['title'])}</h1>"
        f"<p>{escape(info.get('description', ''))}</p>"
        f'<p>The same for programs: <a href="{schema_path}">{schema_path}</a> (OpenAPI 3.1).</p>' + "".join(routes)
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}<td>{escape(one.get('description') or '')}"
        for one in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td>{status}<td>{', '.join(f'<code>{escape(kind)}</code>' for kind in answer.get('content', {}))}"
        f"<td>{escape(answer.get('description', ''))}"
        for status, answer in operation["responses"].items()
    )
    name = escape(f"{method.upper()} {path}")
    return (
        f"<h2><code>{name}</code></h2><p>{escape(operation.get('description') or '')}</p>"
        + (f"<table>{parameters}</table>" if parameters else "")
        + f"<table>{answers}</table>"
    )
