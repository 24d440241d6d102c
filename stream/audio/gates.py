"""What the worker may reach: public addresses and allowed hosts, files inside the allowed folders, allowed buckets.

Each gate judges what is about to be used and not its name, so that nothing can change between check and use:

- a web address by the socket address that is about to be connected (`public_sockets`). Numeric hosts, DNS answers and
  the targets of redirects all pass there.
- a file by its open descriptor (`open_inside`), whatever links led to it.
- a bucket by its exact name (`bucket_object`).

A URI that is refused raises FetchRefused, whose message shows no password, query or fragment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote_to_bytes, urlsplit

import aiohttp
from yarl import URL

from models.errors import FetchFailed, FetchRefused, NotFound, SettingsError
from stream.audio.intake import TransientError
from stream.audio.machine import lacking
from stream.audio.uris import shown_uri

_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),  # Python 3.11 may know only parts of it; a cloud keeps its metadata there
    IPv4Network("168.63.129.16/32"),  # serves each machine in Azure the secrets of that machine
    IPv6Network("3fff::/20"),  # documentation, newer than the registry that Python 3.11 knows
)
_WEB = re.compile(r"(https?)://([^/?#]*)([^#]*)(#.*)?", re.IGNORECASE)  # scheme, authority, path and query, fragment
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")  # a name (IDNA) or an address
_OF_URLS = ":/?#[]@!$&'()*+,;=%-._~"  # what may stand in a URL beside letters and digits (RFC 3986)
_CHAIN = re.compile(r"::(/|[A-Za-z0-9+.-]+:/)")
_SERVER_AWAY = frozenset(  # errors of a file system whose disk or server is away
    {errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)
_KERNEL_FOLDERS = (Path("/proc"), Path("/sys"))


class NotPublicError(OSError):
    """A socket was refused because its address is not public."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, by the IANA special-purpose registries (RFC 6890).

    The addresses from which clouds serve machines their secrets do not. An IPv4 address inside an IPv6 one
    (IPv4-mapped, NAT64) is judged as the IPv4 address; addresses of the tunnels 6to4 and Teredo are never public.

        is_public("8.8.8.8")           # True
        is_public("169.254.169.254")   # False

    Raises:
        ValueError: address is no IP address.
    """
    ip: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(ip, IPv6Address):
        if ip.sixtofour or ip.teredo or ip.is_site_local:
            return False
        ip = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else ip)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_PUBLIC))


def public_sockets(is_public: Callable[[str], bool]) -> aiohttp.SocketFactoryType:
    """A socket factory for aiohttp that raises NotPublicError where the address to connect is not public."""

    def make(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, target = address
        if not is_public(target[0]):
            raise NotPublicError(errno.EACCES, "not public")
        return socket.socket(family, kind, protocol)

    return make


def web_url(text: str, *, base: URL | None = None) -> URL:
    """The URL of an http(s) address, or of a redirect from `base`.

    Path and query are sent as they are given: a server may have signed this very text, and %2F is no /. Only what may
    not stand in a URL, such as a space, is percent-encoded.

    Raises:
        FetchRefused: it has another scheme, no host, a user or password, or a control character.
    """
    with contextlib.suppress(ValueError):
        address = text.strip() if base is None else _redirected(text.strip(), base)
        parts = _WEB.fullmatch(address)
        if parts and not any(map(_is_control, address)):
            origin = URL(f"{parts[1]}://{parts[2]}")
            # The query stands in the path, where yarl leaves it alone; from its own place it drops a "?" at the end.
            target = quote(parts[3], safe=_OF_URLS, errors="surrogateescape")
            url = URL.build(
                scheme=origin.scheme,
                authority=origin.raw_authority,
                path=target if target.startswith("/") else f"/{target}",
                encoded=True,
            )
            is_host = url.host and _HOST.fullmatch(url.raw_host or "")  # its IDNA can be read, or ValueError
            if is_host and url.raw_user is None and url.raw_password is None:
                return url
    raise FetchRefused(
        f"{shown_uri(text)} is no http(s) address with a host and without user, password and control characters; "
        "use one that is"
    )


def _redirected(location: str, base: URL) -> str:
    """The address that a Location header means (RFC 3986, 5.2); urljoin drops empty segments and a "?" at the end."""
    if _HAS_SCHEME.match(location):
        return location
    if location.startswith("//"):
        return f"{base.scheme}:{location}"
    if location.startswith("/"):
        return f"{base.origin()}{location}"
    if location[:1] in ("", "#"):
        return str(base)
    base_path = base.raw_path.partition("?")[0]
    if location.startswith("?"):
        return f"{base.origin()}{base_path}{location}"
    path = re.split(r"[?#]", location, maxsplit=1)[0]
    kept: list[str] = []
    segments = [*base_path.split("/")[1:-1], *path.split("/")]
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return f"{base.origin()}/{'/'.join(kept)}{location[len(path) :]}"


def _is_control(letter: str) -> bool:
    return letter < " " or letter == "\x7f"


def allowed_host(text: str) -> tuple[str, int | None]:
    """The host of an entry of TASTEWAVE_ALLOWED_HOSTS, as `raw_host` of a URL gives it, and its port if it names one.

    allowed_host("Store.internal:9000")   # ("store.internal", 9000)
    allowed_host("::1")                   # ("::1", None)

    Raises:
        SettingsError: it is no host.
    """
    is_bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
    try:
        url = URL(f"//[{text}]" if is_bare_ipv6 else f"//{text}")
    except ValueError:
        raise SettingsError(
            f"TASTEWAVE_ALLOWED_HOSTS: {text} is no host; see the settings in deploy/docs/settings.md"
        ) from None
    return url.raw_host or "", url.explicit_port


def bucket_object(uri: str, *, allowed: Collection[str]) -> tuple[str, str]:
    """The scheme and the whole address, as fsspec takes it, of an object in an allowed bucket.

    Args:
        uri: such as s3://music/2026/a.mp3.
        allowed: buckets such as s3://music, without a slash at the end.

    Raises:
        FetchRefused: the bucket is not allowed; or the key is empty, leads upwards or chains file systems as fsspec
            does ("::" before an address). Another "::" is part of the key.
    """
    scheme, _, rest = uri.partition(":")
    scheme = scheme.lower()
    bucket, _, key = rest.removeprefix("//").partition("/")
    is_allowed = rest.startswith("//") and f"{scheme}://{bucket}" in allowed
    if not is_allowed or not key or ".." in key.split("/") or _CHAIN.search(uri):
        raise FetchRefused(
            f"{shown_uri(uri)} is neither file://, http(s):// nor an object in one of TASTEWAVE_ALLOWED_BUCKETS; "
            "use such an address, or allow its bucket"
        )
    return scheme, f"{scheme}:{rest}"


def named_root(uri: str, *, roots: Sequence[str]) -> str:
    """The root that a file:// URI names, links not followed; "file://" where it names none. Raises FetchRefused."""
    path = Path(os.fsdecode(_file_path(uri)))
    return f"file://{next(filter(path.is_relative_to, roots), '')}"


def open_inside(uri: str, *, roots: Sequence[Path]) -> IO[bytes]:
    """Open the regular file of a file:// URI, unbuffered.

    Args:
        uri: file:///absolute/path, with special characters percent-encoded.
        roots: folders that it may lie in, resolved.

    Raises:
        FetchRefused: it lies outside the roots, is no regular file, or the URI names no local file.
        NotFound: there is no such file inside the roots.
        FetchFailed: it cannot be opened.
        MachineUnusable: the worker's machine lacks what opening it needs.
        TransientError: the file system, or the whole folder of the roots, is not there now.
    """
    path = _file_path(uri)
    try:
        # O_PATH gives a descriptor without opening the file: no FIFO waits for a writer, no device is woken.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        # Refuse before saying that it is missing: nobody can find out which files exist outside the roots.
        root = _check_inside(Path(os.path.realpath(os.fsdecode(path))), roots, uri)
        if error.errno in _SERVER_AWAY or not root.exists():
            raise TransientError(f"cannot be opened ({error.strerror}: {root})") from None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(f"{shown_uri(uri)} is not there; upload the track with the path of its file") from None
        problem = FetchFailed(f"{shown_uri(uri)} cannot be opened ({error.strerror}); check its permissions")
        raise lacking(error) or problem from None
    try:
        descriptor = Path(f"/proc/self/fd/{handle}")  # links to the real path of what was opened
        _check_inside(descriptor.readlink(), roots, uri)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FetchRefused(f"{shown_uri(uri)} is not a regular file; upload a file of audio")
        return descriptor.open("rb", buffering=0)
    except OSError as error:
        if error.errno in _SERVER_AWAY:
            raise TransientError(f"cannot be opened ({error.strerror})") from None
        problem = FetchFailed(f"{shown_uri(uri)} cannot be read ({error.strerror}); check its permissions")
        raise lacking(error) or problem from None
    finally:
        os.close(handle)


def _file_path(uri: str) -> bytes:
    try:
        parts = urlsplit(uri)
        path = unquote_to_bytes(parts.path)
    except ValueError:
        path = b""
    else:
        if parts.netloc.lower() not in ("", "localhost") or "?" in uri or "#" in uri:
            path = b""
    if not path.startswith(b"/") or b"\0" in path:
        raise FetchRefused(
            f"{shown_uri(uri)} does not name a local file; use file:///absolute/path with ? # and % percent-encoded"
        )
    return path


def _check_inside(path: Path, roots: Sequence[Path], uri: str) -> Path:
    """The root that a path lies in."""
    root = next(filter(path.is_relative_to, roots), None)
    if root is None or any(map(path.is_relative_to, _KERNEL_FOLDERS)):
        raise FetchRefused(
            f"{shown_uri(uri)} lies outside TASTEWAVE_FILE_ROOTS; move the file into one of them, or add its folder"
        )
    return root
