"""Audio from a URI, brought to an open file that no crash can leave behind; what settings do not allow is refused.

The gates hold at the moment of use, so that nothing can change between check and use: a file is judged by
the descriptor that is read, a web address by the socket about to be connected (literal addresses, DNS
answers and every redirect alike), a bucket by its exact name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import os
import re
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import IO, Self, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

import aiohttp
import aiohttp.abc
import fsspec
import tenacity
from yarl import URL

from models.errors import FetchFailed, FetchRefused, NotFound, TooLarge
from stream.audio.uris import shown_uri
from stream.settings import FetchSettings

_BLOCK_BYTES = 1 << 20  # hashed and written in one visit to a thread
_BUCKET_READ_BYTES = 4 << 20
_MAX_BACKOFF_S = 10.0
_THREADS = 32
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_KERNEL_FOLDERS = (Path("/proc"), Path("/sys"))
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),  # Python 3.11 may know only parts of it; a cloud keeps its metadata there
    IPv4Network("168.63.129.16/32"),  # tells every machine in Azure what is for that machine alone
    IPv6Network("3fff::/20"),  # documentation, newer than the registry that Python 3.11 knows
)
_HOST = re.compile(r"[A-Za-z0-9._:-]+")  # a name (IDNA) or an address

T_ = TypeVar("T_")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, by the IANA special-purpose registries (RFC 6890).

    The addresses at which clouds tell their machines secrets do not.
    An IPv4 address inside an IPv6 one (IPv4-mapped, NAT64) counts as itself; the tunnels 6to4 and Teredo
    are never public. Raises ValueError when address is no IP address.
    """
    ip: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(ip, IPv6Address):
        if ip.sixtofour or ip.teredo or ip.is_site_local:
            return False
        ip = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else ip)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_PUBLIC))


@dataclass(frozen=True, slots=True)
class Fetched:
    """Audio in an open file, which is gone with its last descriptor where it is ours.

    Attributes:
        file: an unlinked temporary file, or the original of a file:// URI; readable, at its start.
        size_bytes: bytes in it.
        content_hash: SHA-256 of these bytes, hexadecimal.
    """

    file: IO[bytes]
    size_bytes: int
    content_hash: str

    def close(self) -> None:
        """Let go of the file; may be called again."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Fetcher:
    """Fetches audio by the rules of the settings; an async context manager.

    Args:
        settings: file_roots, allowed_hosts, allowed_buckets and fetch_*.
        resolver: answers host names; the system's when None.
        backoff_s: wait before the second try; doubled before each further one, and up to as much again by chance.
    """

    def __init__(
        self, settings: FetchSettings, *, resolver: aiohttp.abc.AbstractResolver | None = None, backoff_s: float = 0.5
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._allowed_hosts = frozenset(host.strip("[]").lower() for host in settings.allowed_hosts)
        self._allowed_buckets = frozenset(bucket.rstrip("/") for bucket in settings.allowed_buckets)
        self._tries = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(settings.attempts),
            wait=tenacity.wait_exponential_jitter(multiplier=backoff_s, max=_MAX_BACKOFF_S, jitter=backoff_s),
            retry=tenacity.retry_if_exception_type(_TransientError),
            reraise=True,
        )

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch")
        self._public_web = self._web(_public_socket)
        self._allowed_web = self._web(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._public_web.close()
        await self._allowed_web.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, uri: str) -> Fetched:
        """Bring the audio here; the caller closes what it gets.

        Returns or raises within fetch_timeout_s, with all tries, redirects and waits between them.

        Raises:
            FetchRefused: settings do not allow this scheme, address, bucket or file.
            NotFound: the address answers, the audio is not there.
            TooLarge: more than fetch_max_bytes.
            FetchFailed: the other side failed for good, in every try, or did not finish in time.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(settings.timeout_s):
                return await self._tries.copy()(self._way(uri))
        except _TransientError as error:
            tries = "one try" if settings.attempts == 1 else f"each of {settings.attempts} tries"
            raise FetchFailed(f"{shown_uri(uri)} {error} in {tries}; upload the track again when it is well") from None
        except TimeoutError:
            raise FetchFailed(
                f"{shown_uri(uri)} did not arrive within {settings.timeout_s:g} s; upload the track again "
                "when it is quicker, or raise TASTEWAVE_FETCH_TIMEOUT_S"
            ) from None

    def _way(self, uri: str) -> Callable[[], Awaitable[Fetched]]:
        """How its scheme is fetched. Raises FetchRefused where it is not."""
        scheme, _, rest = uri.partition(":")
        scheme = scheme.lower()
        deadline = time.monotonic() + self._settings.timeout_s
        if scheme == "file":
            return functools.partial(self._in_thread, self._read_file, uri, deadline)
        if scheme in ("http", "https"):
            return functools.partial(self._download, _web_url(uri))
        bucket, _, key = rest.removeprefix("//").partition("/")
        allowed = rest.startswith("//") and f"{scheme}://{bucket}" in self._allowed_buckets
        if not allowed or not key or ".." in key.split("/") or "::" in uri:
            raise FetchRefused(
                f"{shown_uri(uri)} is neither file://, http(s):// nor an object in one of TASTEWAVE_ALLOWED_BUCKETS; "
                "use such an address, or allow its bucket"
            )
        return functools.partial(_in_own_thread, self._read_bucket, scheme, f"{scheme}:{rest}", deadline)

    async def _in_thread(self, work: Callable[..., T_], *arguments: object) -> T_:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _read_file(self, uri: str, deadline: float) -> Fetched:
        original = _open_inside(uri, [Path(root).resolve() for root in self._settings.file_roots])
        with _Intake(shown_uri(uri), self._settings.max_bytes, original=original) as intake:
            intake.expect(os.fstat(original.fileno()).st_size)
            while block := _read(original):
                intake.add(block)
                _still_wanted(deadline)
            return intake.finish()

    def _read_bucket(self, scheme: str, uri: str, deadline: float) -> Fetched:
        place = shown_uri(uri)
        try:
            filesystem = fsspec.filesystem(scheme)
        except (ImportError, ValueError):
            raise FetchRefused(f"{place} needs fsspec's package for {scheme}://; install it with the worker") from None
        with contextlib.ExitStack() as stack:
            with _bucket_errors(place):
                source = stack.enter_context(filesystem.open(uri, "rb", block_size=_BUCKET_READ_BYTES))
            intake = stack.enter_context(_Intake(place, self._settings.max_bytes))
            intake.expect(getattr(source, "size", None))
            while True:
                with _bucket_errors(place):
                    block = source.read(_BLOCK_BYTES)
                if not block:
                    return intake.finish()
                intake.add(block)
                _still_wanted(deadline)

    async def _download(self, url: URL) -> Fetched:
        """Follow redirects by hand, each through the same gates, to the body."""
        for _ in range(self._settings.max_redirects + 1):
            with _web_errors(shown_uri(str(url))):
                web = self._allowed_web if url.host in self._allowed_hosts else self._public_web
                async with web.get(url, allow_redirects=False) as response:
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or location is None:
                        return await self._receive(response)
            url = _web_url(location, base=url)
        raise FetchFailed(
            f"{shown_uri(str(url))} stands behind more than {self._settings.max_redirects} redirects; "
            "upload the track with its final address"
        )

    async def _receive(self, response: aiohttp.ClientResponse) -> Fetched:
        place = shown_uri(str(response.url))
        _check_answer(response, place)
        with _Intake(place, self._settings.max_bytes) as intake:
            intake.expect(response.content_length)
            block = bytearray()
            async for data in response.content.iter_any():
                block += data
                if len(block) >= _BLOCK_BYTES:
                    await self._in_thread(intake.add, block)
                    block = bytearray()
            await self._in_thread(intake.add, block)
            return await self._in_thread(intake.finish)

    def _web(self, socket_factory: aiohttp.SocketFactoryType | None) -> aiohttp.ClientSession:
        idle_s = self._settings.timeout_s / self._settings.attempts
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._resolver, socket_factory=socket_factory),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=idle_s, sock_read=idle_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "tastewave"},
            auto_decompress=False,
        )


class _TransientError(Exception):
    """What the other side did this time; it may do better when tried again."""


class _NotPublicError(OSError):
    """The socket is not made, because it would lead to an address that is not public."""


class _Intake:
    """Counts and hashes what comes in, keeps it in a file, and refuses too much of it.

    The file is an unlinked temporary one, or `original`, which holds the blocks already.
    """

    def __init__(self, place: str, max_bytes: int, *, original: IO[bytes] | None = None) -> None:
        self._place = place
        self._max_bytes = max_bytes
        self._copies = original is None
        with _disk_errors():
            self._file = original or tempfile.TemporaryFile()  # noqa: SIM115 - Fetched owns it
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file.close()  # waits for a block that a thread is writing

    def expect(self, size_bytes: int | None) -> None:
        """Refuse at once what is announced as too large."""
        if size_bytes is not None and size_bytes > self._max_bytes:
            raise TooLarge(
                f"{self._place} has {size_bytes} bytes or more, and {self._max_bytes} are allowed; "
                "upload a smaller file, or raise TASTEWAVE_FETCH_MAX_BYTES"
            )

    def add(self, block: bytes | bytearray) -> None:
        self._size_bytes += len(block)
        self.expect(self._size_bytes)
        self._hash.update(block)
        if self._copies:
            with _disk_errors():
                self._file.write(block)

    def finish(self) -> Fetched:
        with _disk_errors():
            self._file.seek(0)
        return Fetched(self._file, self._size_bytes, self._hash.hexdigest())


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _TransientError(f"cannot be kept on the worker's disk ({error.strerror})") from None


async def _in_own_thread(work: Callable[..., T_], *arguments: object) -> T_:
    """Run what may hang for minutes where it holds up neither other work nor the end of the process."""
    outcome: Future[T_] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, name="fetch-bucket", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _still_wanted(deadline: float) -> None:
    """Ends a thread whose caller has stopped waiting."""
    if time.monotonic() > deadline:
        raise TimeoutError


def _open_inside(uri: str, roots: list[Path]) -> IO[bytes]:
    """Open the regular file of a file:// URI, judged by its descriptor: nothing can take its place meanwhile."""
    path = _file_path(uri)
    try:
        # O_PATH touches nothing: no FIFO waits for a writer, no device is woken.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        # Outside the roots, what is there and what is not are refused alike.
        _check_inside(Path(os.path.realpath(os.fsdecode(path))), roots, uri)
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(f"{shown_uri(uri)} is not there; upload the track with the path of its file") from None
        raise FetchFailed(f"{shown_uri(uri)} cannot be opened ({error.strerror}); check its permissions") from None
    try:
        descriptor = Path(f"/proc/self/fd/{handle}")
        _check_inside(descriptor.readlink(), roots, uri)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FetchRefused(f"{shown_uri(uri)} is not a regular file; upload a file of audio")
        return descriptor.open("rb", buffering=0)
    except OSError as error:
        raise FetchFailed(f"{shown_uri(uri)} cannot be read ({error.strerror}); check its permissions") from None
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


def _check_inside(path: Path, roots: list[Path], uri: str) -> None:
    if not any(map(path.is_relative_to, roots)) or any(map(path.is_relative_to, _KERNEL_FOLDERS)):
        raise FetchRefused(
            f"{shown_uri(uri)} lies outside TASTEWAVE_FILE_ROOTS; move the file into one of them, or add its folder"
        )


def _read(file: IO[bytes]) -> bytes:
    try:
        return file.read(_BLOCK_BYTES)
    except OSError as error:
        raise _TransientError(f"broke off ({error.strerror})") from None


@contextlib.contextmanager
def _bucket_errors(place: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"{place} is not there; upload the track with the address of its object") from None
    except PermissionError:
        raise FetchFailed(f"{place} may not be read with the worker's credentials; grant it read access") from None
    except Exception as error:  # noqa: BLE001 - every fsspec package raises errors of its own
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):  # botocore's
            raise FetchFailed(f"{place} needs credentials that the worker lacks; give it read access") from None
        raise _TransientError(f"failed ({type(error).__name__})") from None


def _public_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, target = address
    if not is_public(target[0]):
        raise _NotPublicError(errno.EACCES, "not public")
    return socket.socket(family, kind, protocol)


def _web_url(text: str, *, base: URL | None = None) -> URL:
    """The URL of a web address, or of a redirect from base. Raises FetchRefused for anything else."""
    with contextlib.suppress(ValueError):
        url = base.join(URL(text)) if base else URL(text)
        named = url.scheme in ("http", "https") and _HOST.fullmatch(url.raw_host or "")
        if named and url.raw_user is None and url.raw_password is None:
            return url
    raise FetchRefused(
        f"{shown_uri(text)} is no http(s) address with a host and without user and password; use one that is"
    )


def _check_answer(response: aiohttp.ClientResponse, place: str) -> None:
    status, encoding = response.status, response.headers.get("Content-Encoding", "identity")
    if status in _GONE:
        raise NotFound(f"{place} answered {status}: the audio is not there; upload the track with its address")
    if status in _TRANSIENT_STATUS or status >= 500:
        raise _TransientError(f"answered {status}")
    if status != 200:
        raise FetchFailed(f"{place} answered {status}, which is not audio; check that the worker may read it")
    if encoding.lower() != "identity":
        raise FetchFailed(f"{place} came with Content-Encoding {encoding[:40]!r}; serve the file as it is")


@contextlib.contextmanager
def _web_errors(place: str) -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientConnectorCertificateError:
        raise FetchFailed(f"{place} shows a certificate that is not trusted; check its host") from None
    except ValueError:  # aiohttp's InvalidURL, an IDNA that cannot be, a control character in the request
        raise FetchRefused(
            f"{place} is not a usable web address; spell its host as a name or a plain address"
        ) from None
    except aiohttp.ClientConnectorError as error:
        cause = error.os_error
        if isinstance(cause, _NotPublicError):
            raise FetchRefused(
                f"{place} leads to an address that is not public; use a public one, "
                "or add its host to TASTEWAVE_ALLOWED_HOSTS"
            ) from None
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            raise FetchFailed(f"{place} names an unknown host; check the address") from None
        raise _TransientError(f"cannot be connected ({type(error).__name__})") from None
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise _TransientError(f"broke off ({type(error).__name__})") from None
