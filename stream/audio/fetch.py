"""Audio from its URI into an open file: the tries, the redirects, and how each scheme is read.

What may be reached is for stream.audio.gates to say, what is kept of it for stream.audio.intake.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Self, TypeVar

import aiohttp
import aiohttp.abc
import fsspec
import tenacity
from yarl import URL

from models.errors import FetchFailed, FetchRefused, NotFound
from stream.audio import gates
from stream.audio.breaker import Breaker, Visit
from stream.audio.codings import GZIP_START, Unpacked, coding
from stream.audio.intake import Fetched, Intake, TransientError
from stream.audio.machine import lacking
from stream.audio.uris import shown_uri
from stream.settings import FetchSettings

_BLOCK_BYTES = 1 << 20  # a thread hashes and writes one block at a time
_BUCKET_READ_BYTES = 4 << 20
_MAX_BACKOFF_S = 10.0
_THREADS = 32
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_TRANSIENT_STATUS = frozenset({408, 425, 429})

T_ = TypeVar("T_")


class Fetcher:
    """Fetches audio by the rules of the settings; an async context manager.

        async with Fetcher(load_settings().fetch) as fetcher:
            with await fetcher.fetch("https://example.org/song.mp3") as fetched:
                fetched.file.read()

    Args:
        settings: where audio may come from, and how much of it.
        resolver: answers host names; the system's when None.
        is_public: whether an IP address may be reached by a host that is not in settings.allowed_hosts.
        breaker: knows which servers are away.
        backoff_s: wait before the second try. It doubles before each further try, and up to backoff_s more is added
            at random.
    """

    def __init__(
        self,
        settings: FetchSettings,
        *,
        resolver: aiohttp.abc.AbstractResolver | None = None,
        is_public: Callable[[str], bool] = gates.is_public,
        breaker: Breaker | None = None,
        backoff_s: float = 0.5,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._is_public = is_public
        self._breaker = breaker or Breaker()
        self._allowed_hosts = frozenset(map(gates.allowed_host, settings.allowed_hosts))
        self._allowed_buckets = frozenset(bucket.rstrip("/") for bucket in settings.allowed_buckets)
        self._tries = tenacity.AsyncRetrying(
            wait=tenacity.wait_exponential_jitter(multiplier=backoff_s, max=_MAX_BACKOFF_S, jitter=backoff_s),
            retry=tenacity.retry_if_exception_type(TransientError),
            reraise=True,
        )

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch")
        self._public_web = self._web(gates.public_sockets(self._is_public))
        self._allowed_web = self._web(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._public_web.close()
        await self._allowed_web.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, uri: str) -> Fetched:
        """Copy the audio into a temporary file (a local file is opened in its place); the caller closes it.

        Returns or raises within settings.timeout_s, all tries, redirects and waits included.

        Raises:
            FetchRefused: settings do not allow this scheme, address, bucket or file.
            NotFound: the server, bucket or folder answered that there is no such file.
            TooLarge: the audio has more than settings.max_bytes.
            FetchFailed: it failed for a reason that lasts, in every try, or did not finish in time.
            HostAway: the server is away (stream.audio.breaker); the track is not to blame.
            MachineUnusable: the worker's own machine lacks what fetching needs; the track is not to blame.
        """
        settings = self._settings
        with self._breaker.visit(uri) as visit:
            try:
                async with asyncio.timeout(settings.timeout_s):
                    return await self._tries.copy(stop=self._last_try(visit))(self._reader(uri, visit))
            except TransientError as error:
                trouble = str(error)
                tries = "one try" if settings.attempts == 1 or visit.asks else f"each of {settings.attempts} tries"
                failure = FetchFailed(f"{shown_uri(uri)} {trouble} in {tries}; upload the track again when it is well")
            except TimeoutError:
                trouble = "sent no whole file in time"
                failure = FetchFailed(
                    f"{shown_uri(uri)} did not arrive within {settings.timeout_s:g} s; upload the track again "
                    "when it is quicker, or raise TASTEWAVE_FETCH_TIMEOUT_S"
                )
            raise visit.failed(failure, trouble=trouble) from None

    def _last_try(self, visit: Visit) -> Callable[[tenacity.RetryCallState], bool]:
        """Says that a try was the last one. A server that is away is asked once."""
        return lambda state: bool(visit.asks) or state.attempt_number >= self._settings.attempts

    def _reader(self, uri: str, visit: Visit) -> Callable[[], Awaitable[Fetched]]:
        """The function that makes one try, chosen by the scheme. Raises FetchRefused."""
        scheme = uri.partition(":")[0].lower()
        deadline = time.monotonic() + self._settings.timeout_s
        if scheme == "file":
            root = gates.named_root(uri, roots=self._settings.file_roots)
            return functools.partial(self._from_store, root, visit, self._read_file, uri, deadline)
        if scheme in ("http", "https"):
            return functools.partial(self._download, gates.web_url(uri), visit)
        scheme, address = gates.bucket_object(uri, allowed=self._allowed_buckets)
        bucket = "/".join(address.split("/", 3)[:3])
        return functools.partial(self._from_store, bucket, visit, self._read_bucket, scheme, address, deadline)

    async def _in_thread(self, work: Callable[..., T_], *arguments: object) -> T_:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _from_store(self, name: str, visit: Visit, read: Callable[..., Fetched], *arguments: object) -> Fetched:
        """Read from a root or bucket, which may hang as long as its server is away."""
        visit.reach(name, listed=True)
        with visit.answering():
            return await _in_own_thread(read, *arguments)

    def _read_file(self, uri: str, deadline: float) -> Fetched:
        original = gates.open_inside(uri, roots=[Path(root).resolve() for root in self._settings.file_roots])
        with Intake(shown_uri(uri), max_bytes=self._settings.max_bytes, original=original) as intake:
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
            intake = stack.enter_context(Intake(place, max_bytes=self._settings.max_bytes))
            intake.expect(getattr(source, "size", None))
            sink: Intake | Unpacked | None = None
            while True:
                with _bucket_errors(place):
                    block = source.read(_BLOCK_BYTES)
                # A store sends an object that it keeps in gzip with Content-Encoding, which fsspec does not tell.
                sink = sink or (Unpacked(intake, place, "gzip") if block.startswith(GZIP_START) else intake)
                if not block:
                    return sink.finish()
                sink.add(block)
                _still_wanted(deadline)

    async def _download(self, url: URL, visit: Visit) -> Fetched:
        """Follow redirects one by one, each through the same gates, and receive the body of the last answer."""
        for _ in range(self._settings.max_redirects + 1):
            is_allowed = bool({(url.raw_host, None), (url.raw_host, url.port)} & self._allowed_hosts)
            web = self._allowed_web if is_allowed else self._public_web
            visit.reach(str(url.origin()), listed=is_allowed)
            with _web_errors(shown_uri(str(url))):
                async with web.get(url, allow_redirects=False) as response:
                    with visit.answering():
                        location = response.headers.get("Location")
                        if response.status not in _REDIRECTS or location is None:
                            return await self._receive(response)
            url = gates.web_url(location, base=url)
        raise FetchFailed(
            f"{shown_uri(str(url))} stands behind more than {self._settings.max_redirects} redirects; "
            "upload the track with its final address"
        )

    async def _receive(self, response: aiohttp.ClientResponse) -> Fetched:
        place = shown_uri(str(response.url))
        _check_answer(response, place)
        with Intake(place, max_bytes=self._settings.max_bytes) as intake:
            intake.expect(response.content_length)
            packed = coding(response.headers.getall("Content-Encoding", ()))
            sink = Unpacked(intake, place, packed) if packed else intake
            block = bytearray()
            async for data in response.content.iter_any():
                block += data
                if len(block) >= _BLOCK_BYTES:
                    await self._in_thread(sink.add, block)
                    block = bytearray()
            await self._in_thread(sink.add, block)
            return await self._in_thread(sink.finish)

    def _web(self, socket_factory: aiohttp.SocketFactoryType | None) -> aiohttp.ClientSession:
        """A session whose connections use sockets of the factory; it asks for files as they are, and sends no cookie.

        A silent server is given up early enough to leave time for the other tries.
        """
        idle_s = self._settings.timeout_s / self._settings.attempts
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._resolver, socket_factory=socket_factory),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=idle_s, sock_read=idle_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "tastewave"},
            auto_decompress=False,
        )


async def _in_own_thread(work: Callable[..., T_], *arguments: object) -> T_:
    """Run work that may hang for minutes in a daemon thread, where it delays neither other work nor the process's end.

    A ThreadPoolExecutor would do neither: it has a fixed number of threads, and Python joins them at exit.
    """
    outcome: Future[T_] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, name="fetch-store", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _still_wanted(deadline: float) -> None:
    """Raise TimeoutError after the deadline, which ends a thread whose caller no longer waits."""
    if time.monotonic() > deadline:
        raise TimeoutError


def _read(file: IO[bytes]) -> bytes:
    try:
        return file.read(_BLOCK_BYTES)
    except OSError as error:
        raise lacking(error) or TransientError(f"broke off ({error.strerror})") from None


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
            raise TransientError("needs credentials that the worker lacks (give it read access)") from None
        raise lacking(error) or TransientError(f"failed ({type(error).__name__})") from None


def _check_answer(response: aiohttp.ClientResponse, place: str) -> None:
    status = response.status
    if status in _GONE:
        raise NotFound(f"{place} answered {status}: the audio is not there; upload the track with its address")
    if status in _TRANSIENT_STATUS or status >= 500:
        raise TransientError(f"answered {status}")
    if status != 200:
        raise FetchFailed(f"{place} answered {status}, which is not audio; check that the worker may read it")


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
        if isinstance(cause, gates.NotPublicError):
            raise FetchRefused(
                f"{place} leads to an address that is not public; use a public one, "
                "or add its host to TASTEWAVE_ALLOWED_HOSTS"
            ) from None
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            raise FetchFailed(f"{place} names an unknown host; check the address") from None
        raise lacking(error) or TransientError(f"cannot be connected ({type(error).__name__})") from None
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise TransientError(f"broke off ({type(error).__name__})") from None
