"""The page: GET / and the files below /page, held in memory as they are sent."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from litestar import MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter

_FOLDER = Path(__file__).with_name("page")
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy of the page: nothing from elsewhere, no script and no style within the HTML."""


class PageFile(NamedTuple):
    """A file, ready to be sent."""

    body: bytes
    compressed: bytes
    media_type: str
    etag: str


def read_page() -> dict[str, PageFile]:
    """The files, by their path below the folder."""
    paths = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _KINDS)
    return {path.relative_to(_FOLDER).as_posix(): _prepared(path) for path in paths}


def _prepared(path: Path) -> PageFile:
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return PageFile(body, gzip.compress(body, mtime=0), _KINDS[path.suffix], etag)


def page_routes() -> list[Any]:
    """The routes."""
    files = read_page()

    @get("/", include_in_schema=False)
    async def index(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The page."""
        return _answer(request, files["index.html"])

    @get("/page/{path:path}", include_in_schema=False)
    async def file(request: Request[Any, Any, Any], path: Annotated[Path, PathParameter()]) -> Response[bytes]:
        """A file of the page."""
        if found := files.get(path.as_posix().lstrip("/")):
            return _answer(request, found)
        raise NotFoundException(f"the page has no file {path}")

    return [index, file]


def _answer(request: Request[Any, Any, Any], file: PageFile) -> Response[bytes]:
    """Kept by browsers, and asked for again each time: after an upgrade no old file is shown."""
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",
        "ETag": file.etag,
        "Vary": "Accept-Encoding",
    }
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers, media_type=MediaType.TEXT)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.body, headers=headers, media_type=file.media_type)
    headers["Content-Encoding"] = "gzip"
    return Response(file.compressed, headers=headers, media_type=file.media_type)
