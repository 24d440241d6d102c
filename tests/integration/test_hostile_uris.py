"""Upload events with URIs of forbidden places: a real worker refuses each, and tags the good tracks between them."""

import contextlib
import http.server
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from stream.audio.breaker import FEW
from stream.worker.tracks import _RECORDS_IN_HAND
from tests.platform.clock import until
from tests.platform.music import write_music
from tests.platform.tracks import Platform

pytestmark = pytest.mark.servers


class Forbidden:
    """Listens on one port of loopback, in IPv4 and IPv6, and counts who comes."""

    def __init__(self) -> None:
        self.visitors: list[Any] = []
        self._stack = contextlib.ExitStack()
        first = self._listen("127.0.0.1", 0)
        self.port: int = first.getsockname()[1]
        for address in ("127.0.0.2", "::1"):
            self._listen(address, self.port)

    def _listen(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = self._stack.enter_context(socket.create_server((address, port), family=family))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, visitor = listener.accept()
                self.visitors.append(visitor)
                connection.close()

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def forbidden() -> Iterator[Forbidden]:
    listener = Forbidden()
    yield listener
    listener.close()


def test_the_forbidden_listener_notices_a_visitor(forbidden: Forbidden) -> None:
    for number, address in enumerate(("127.0.0.1", "127.0.0.2", "::1"), start=1):
        socket.create_connection((address, forbidden.port)).close()
        until(lambda number=number: len(forbidden.visitors) == number)


LOOPBACK = (
    *("127.0.0.1", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001"),
    *("localhost", "LOCALHOST", "127.0.0.1.", "%31%32%37.0.0.1", "１２７.0.0.1", "0.0.0.0", "0"),
    *(
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "[::]",
    ),
)


def assert_refused(platform: Platform, uris: list[str], reason: str = "refused_uri") -> None:
    """Upload all with good tracks between them: each becomes a dead letter with the reason, each good one is tagged."""
    good = write_music(platform.folder / "good.wav", seconds=3.2).as_uri()
    refused, neighbours = {}, []
    for number, uri in enumerate(uris):
        refused[platform.upload(uri).track_id] = uri
        if number % 10 == 0:
            neighbours.append(platform.upload(good))
    for event in neighbours:
        assert platform.wait_for(event).status in ("tagged", "abstained")
    platform.settled()
    letters = {letter["key"].decode(): letter for letter in platform.dead_letters()}
    assert {refused[track_id]: letters[track_id]["reason"] for track_id in refused} == dict.fromkeys(uris, reason)
    assert letters.keys() == refused.keys()
    for track_id in refused:
        held = platform.held(track_id)
        assert (held.status, held.reason) == ("failed", reason)
    assert platform.workers[0].poll() is None


def test_no_web_address_of_loopback_is_reached_without_a_setting(platform: Platform, forbidden: Forbidden) -> None:
    platform.start_worker(allowed_hosts="")
    port = forbidden.port
    assert_refused(
        platform,
        [
            *(f"http://{host}:{port}/a.wav" for host in LOOPBACK),
            *(f"https://{host}:{port}/a.wav" for host in ("127.0.0.1", "[::1]", "localhost")),
            *(f"http://user:c4nary@{host}:{port}/a.wav" for host in ("127.0.0.1", "localhost", "music.invalid")),
            f"http://127.0.0.1:{port}@127.0.0.2:{port}/a.wav",
            f"http://127.0.0.1\r\nHost: x:{port}/",
            f"http:\\\\127.0.0.1:{port}\\a.wav",
            f"http:127.0.0.1:{port}/a.wav",
        ],
    )
    assert forbidden.visitors == []


def test_no_other_scheme_and_no_chain_is_followed(platform: Platform, forbidden: Forbidden) -> None:
    place = f"127.0.0.1:{forbidden.port}"
    secret = platform.folder / "secret.wav"
    write_music(secret)
    platform.start_worker(allowed_hosts="", allowed_buckets="memory://music")
    assert_refused(
        platform,
        [
            *(f"{scheme}://{place}/a.wav" for scheme in ("ftp", "sftp", "ssh", "gopher", "dict", "ldap", "tftp", "ws")),
            *(f"{scheme}://{place}/a.wav" for scheme in ("s3", "gs", "abfs", "hdfs", "webhdfs", "smb", "http+unix")),
            *(f"{cache}::http://{place}/a.wav" for cache in ("simplecache", "filecache", "blockcache")),
            *(f"{cache}::{secret.as_uri()}" for cache in ("simplecache", "filecache", "file", "local")),
            *(
                f"zip://a.wav::http://{place}/a.zip",
                f"tar://a.wav::http://{place}/a.tar",
                f"memory://music/a::{secret}",
            ),
            *(f"reference://::http://{place}/a.json", f"dir://a::http://{place}/", f"local://{secret}"),
            *("memory://other/a.wav", "memory://music/../other/a.wav", "memory://user:c4nary@music/a.wav"),
            *("data:audio/wav;base64,UklGRg==", "javascript:alert(1)", "concat:/etc/hostname", "pipe:0", "subfile,,:a"),
            *(str(secret), "a.wav", "//", "://", ":", " ", "\0"),
        ],
    )
    assert forbidden.visitors == []


def test_no_file_outside_the_roots_is_read_by_whatever_way(platform: Platform, tmp_path_factory: Any) -> None:
    roots = platform.folder / "roots"
    roots.mkdir()
    outside = tmp_path_factory.mktemp("outside")
    canary = write_music(outside / "canary.wav", seconds=3.2)
    (roots / "link.wav").symlink_to(canary)
    (roots / "folder").symlink_to(outside)
    (roots / "up").symlink_to("..")
    os.mkfifo(roots / "fifo.wav")
    (roots / "zero.wav").symlink_to("/dev/zero")
    (outside / "fifo.wav").hardlink_to(roots / "fifo.wav")
    beside = platform.folder / "roots-beside"
    beside.mkdir()
    write_music(beside / "a.wav")
    dots = os.path.relpath(canary, roots)
    good_roots = platform.folder / "good.wav"
    platform.start_worker(file_roots=f"{roots},{good_roots}")
    assert_refused(
        platform,
        [
            *(f"file://{canary}", f"file://{roots}/{dots}", f"file://{roots}/{dots.replace('..', '%2e%2e')}"),
            *(f"file://{roots}/{dots.replace('/', '%2f')}", f"file://{roots}/./{dots}", f"file:{canary}"),
            *(f"file://{roots}/link.wav", f"file://{roots}/folder/canary.wav", f"file://{roots}/up/roots-beside/a.wav"),
            *(f"file://{roots}/fifo.wav", f"file://{roots}/zero.wav", f"file://{roots}", f"file://{beside}/a.wav"),
            *(f"file:///proc/self/root{canary}", "file:///proc/self/environ", f"file:///proc/{os.getpid()}/cwd/a.wav"),
            *("file:///proc/self/fd/0", "file:///dev/stdin", "file:///dev/zero", "file:///sys/kernel/notes"),
            *("file:///etc/passwd", "file:///", "file://", "file:", f"file://user:c4nary@localhost{roots}/a.wav"),
            *(
                f"file://127.0.0.1{roots}/a.wav",
                f"file://{roots}/a.wav%00",
                f"file://{roots}/a.wav?x",
                f"FILE://{canary}",
            ),
        ],
    )


@pytest.fixture
def allowed(forbidden: Forbidden, tmp_path: Path) -> Iterator[str]:
    """A web server on an allowed host. /redirect?to redirects; /endless and /drip never stop sending."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, target = self.path.partition("?")
            if path == "/redirect":
                self.send_response(302)
                self.send_header("Location", targets[int(target)])
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1) if path == "/drip" else bytes(65_536))
                    stopped.wait(0.05 if path == "/drip" else 0)

        def log_message(self, *arguments: Any) -> None:
            pass

    stopped = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    targets = redirects(forbidden.port, tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    stopped.set()
    server.shutdown()
    server.server_close()


def redirects(port: int, folder: Path) -> list[str]:
    return [
        *(
            f"http://{host}:{port}/a.wav"
            for host in LOOPBACK
            if host not in ("127.0.0.1", "%31%32%37.0.0.1", "１２７.0.0.1")
        ),
        *(f"//[::1]:{port}/a.wav", f"http://user:c4nary@127.0.0.1:{port}/a.wav", f"https://localhost:{port}/a.wav"),
        *(
            f"{folder.as_uri()}/good.wav",
            f"ftp://127.0.0.1:{port}/a.wav",
            f"simplecache::http://127.0.0.1:{port}/a.wav",
        ),
        *("s3://music/a.wav", "data:audio/wav;base64,UklGRg==", "http://[", "//xn--"),
    ]


def test_no_redirect_of_an_allowed_host_leads_to_another(
    platform: Platform, forbidden: Forbidden, allowed: str, tmp_path: Path
) -> None:
    platform.start_worker(allowed_hosts="127.0.0.1")
    count = len(redirects(forbidden.port, tmp_path))
    assert_refused(platform, [f"{allowed}/redirect?{number}" for number in range(count)])
    assert forbidden.visitors == []


def test_downloads_that_never_end_are_given_up_and_their_neighbours_are_tagged(
    platform: Platform, allowed: str
) -> None:
    platform.start_worker(allowed_hosts="127.0.0.1", fetch_timeout_s="3", fetch_max_bytes="2000000")
    good = write_music(platform.folder / "good.wav", seconds=3.2).as_uri()
    reasons = {}
    neighbours = []
    for path, reason in (("drip", "fetch_failed"), ("endless", "too_large")) * 5:
        reasons[platform.upload(f"{allowed}/{path}").track_id] = reason
        neighbours.append(platform.upload(good))
    for event in neighbours:
        assert platform.wait_for(event).status in ("tagged", "abstained")
    platform.settled()
    assert {letter["key"].decode(): letter["reason"] for letter in platform.dead_letters()} == reasons


class Store:
    """A web server of audio on 127.0.0.1. It can be away, and answers 503 then; or have no track any more."""

    def __init__(self, audio: bytes) -> None:
        self.status = HTTPStatus.OK
        self.requests = 0
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                store.requests += 1
                body = audio if store.status == HTTPStatus.OK else b""
                self.send_response(store.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    audio = write_music(tmp_path / "store.wav", seconds=3.2).read_bytes()
    stores = [Store(audio), Store(audio)]
    yield stores
    for store in stores:
        store.close()


def test_a_store_that_is_away_costs_no_backlog_and_holds_up_no_other(platform: Platform, stores: list[Store]) -> None:
    platform.start_worker(allowed_hosts="127.0.0.1", fetch_attempts="1")
    platform.until_ready()
    lost, other = stores
    lost.status = HTTPStatus.SERVICE_UNAVAILABLE
    waiting = [platform.upload(f"{lost.origin}/{number}.wav") for number in range(30)]
    until(lambda: "fetch" in json.loads(platform.health("/ready")[1])["problems"])
    status, report = platform.health("/ready")
    assert (status, lost.origin in json.loads(report)["problems"]["fetch"]) == (503, True)
    for event in [platform.upload(f"{other.origin}/{number}.wav") for number in range(5)]:
        assert platform.wait_for(event).status in ("tagged", "abstained")
    failed = platform.dead_letters()
    assert len(failed) < FEW  # those by which it was found out
    assert {letter["reason"] for letter in failed} == {"fetch_failed"}

    lost.status = HTTPStatus.OK
    platform.settled()
    platform.until_ready()
    assert platform.dead_letters() == failed
    answers = [platform.held(event.track_id).status for event in waiting]
    assert answers.count("failed") == len(failed)
    assert lost.requests < 100


def test_any_number_of_tracks_that_wait_for_a_store_hold_up_no_other_and_no_stop(
    platform: Platform, stores: list[Store]
) -> None:
    worker = platform.start_worker(allowed_hosts="127.0.0.1", fetch_attempts="1")
    platform.until_ready()
    lost, other = stores
    lost.status = HTTPStatus.SERVICE_UNAVAILABLE
    waiting = [platform.upload(f"{lost.origin}/{number}.wav") for number in range(_RECORDS_IN_HAND + 100)]
    behind = [platform.upload(f"{other.origin}/{number}.wav") for number in range(3)]
    for event in behind:
        assert platform.wait_for(event).status in ("tagged", "abstained")
    begun = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert time.monotonic() - begun < platform.settings.worker.drain_timeout_s / 2

    lost.status = HTTPStatus.NOT_FOUND
    platform.start_worker(allowed_hosts="127.0.0.1", fetch_attempts="1")
    platform.settled()
    failed = {letter["reason"] for letter in platform.dead_letters()}
    assert failed <= {"not_found", "fetch_failed"}
    assert {platform.held(event.track_id).status for event in waiting} == {"failed"}
    assert {platform.held(event.track_id).status for event in behind} <= {"tagged", "abstained"}
