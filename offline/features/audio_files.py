"""A track's file, here or wherever fsspec reads: how it is shown, what tells that it has changed, and its bytes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec

from models.errors import FetchFailed, NotFound, TooLarge

_BLOCK_BYTES = 1 << 20
_MARKS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "updated", "mtime")
"""Under which names the file systems of fsspec tell what changes with a file."""


_PLAIN_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[^\s:@\[\]]*)(:[0-9]{0,5})?")
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")  # fsspec reads zip://a.mp3::https://host/a.zip
_QUERY = re.compile(r"[?#]")
_SHOWN_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@'\"<>]*@)?([^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?")


def shown(uri: str) -> str:
    """How a store names a file: without user, password, query and fragment, which may be a key to it.

        shown("https://host/a.mp3?token=abc")  # "https://host/a.mp3?sha256=9a3f..."

    A hash stands in the place of the query: different files stay different, where the query says which one it is.
    """
    if "://" not in uri or uri.startswith("file:"):
        return uri
    return "::".join(map(_shown, _CHAIN.split(uri)))


def _shown(uri: str) -> str:
    address, *query = _QUERY.split(uri, maxsplit=1)
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    host = host.rpartition("@")[2]
    hidden = "".join(query)
    if separator and not _PLAIN_HOST.fullmatch(host):  # a password with a slash in it
        host, slash, path, hidden = "(withheld)", "", "", uri
    mark = f"?sha256={hashlib.sha256(hidden.encode()).hexdigest()[:12]}" if hidden else ""
    return f"{scheme}{separator}{host}{slash}{path}{mark}"


def shown_message(message: str, uri: str) -> str:
    """What was said of a file, without what `shown` leaves out: libraries name addresses in their errors."""
    _, *query = _QUERY.split(uri, maxsplit=1)
    if "://" not in uri or uri.startswith("file:"):
        return message
    for secret in filter(None, query):
        message = message.replace(secret, "...")
    return _SHOWN_ADDRESS.sub(r"\1\2", message)


def stamp(uri: str) -> str | None:
    """Size and time of a file, or what a store has in their place; None where nothing is known of it."""
    try:
        if path := _local(uri):
            here = path.stat()
            return f"{here.st_size} {here.st_mtime_ns}"
        source, place = fsspec.url_to_fs(uri)
        about = source.info(place)
    except Exception:  # noqa: BLE001 - every fsspec package raises errors of its own; opening it will say more
        return None
    mark = next((about[name] for name in _MARKS if about.get(name)), None)
    return mark and f"{about.get('size')} {mark}"


@contextmanager
def opened(uri: str, *, max_bytes: int) -> Iterator[IO[bytes]]:
    """The file, open and able to seek; what is not on this machine is copied to a temporary file first.

    Args:
        uri: a path, a file: address with its percent signs, or what fsspec opens.
        max_bytes: of the largest file.

    Raises:
        NotFound: there is no such file.
        TooLarge: it has more bytes.
        FetchFailed: it cannot be read, or is no file.
    """
    path = _local(uri)
    try:
        file = _opened_here(path, max_bytes) if path else _copied(uri, max_bytes)
    except (NotFound, TooLarge, FetchFailed):
        raise
    except FileNotFoundError:
        raise NotFound(f"{uri} is not there; mend the catalogue, or bring the file back") from None
    except Exception as error:  # every fsspec package raises errors of its own
        raise FetchFailed(f"{uri} cannot be read ({error or type(error).__name__}); run this again") from error
    with file:
        yield file


def _local(uri: str) -> Path | None:
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def _opened_here(path: Path, max_bytes: int) -> IO[bytes]:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would never end
        raise FetchFailed(f"{path} is no regular file; mend the catalogue")
    if about.st_size > max_bytes:
        raise _too_large(str(path), max_bytes)
    return path.open("rb")


def _copied(uri: str, max_bytes: int) -> IO[bytes]:
    source, place = fsspec.url_to_fs(uri)
    copy = TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        left = max_bytes + 1
        remote: Any = source.open(place, "rb")
        with remote:
            while left and (block := remote.read(min(left, _BLOCK_BYTES))):
                copy.write(block)
                left -= len(block)
        if not left:
            raise _too_large(uri, max_bytes)
        copy.seek(0, os.SEEK_SET)
    except BaseException:
        copy.close()
        raise
    return copy


def _too_large(uri: str, max_bytes: int) -> TooLarge:
    return TooLarge(f"{uri} has more than {max_bytes // 10**6} MB; raise max_mb, or leave it out")
