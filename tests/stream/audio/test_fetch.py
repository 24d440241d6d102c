"""How audio is brought here: tries, redirects, time, and each scheme."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import fsspec
import pytest
from aiohttp import web

from models.errors import FetchError, FetchFailed, FetchRefused, NotFound, TooLarge
from tests.stream.audio.sites import (
    AUDIO,
    PUBLIC,
    Resolver,
    Site,
    audio,
    contents,
    fetcher,
    open_files,
    raw,
    raw_server,
    redirect,
    reply,
)


async def test_a_request_carries_no_cookie_no_proxy_and_asks_for_the_bytes_as_they_are(
    public: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.2:1")
    public.answers["/set"] = [redirect("/a.mp3", Set_Cookie="session=1")]
    assert await contents(f"http://music.example:{public.port}/set", Resolver(music_example=[PUBLIC])) == AUDIO
    assert [request.path for request in public.requests] == ["/set", "/a.mp3"]
    for request in public.requests:
        assert request.headers["Accept-Encoding"] == "identity"
        assert not {"Cookie", "Authorization", "Referer"} & set(request.headers)


async def test_redirects_are_followed_as_far_as_allowed(public: Site) -> None:
    public.answers |= {f"/{n}": [redirect(f"/{n - 1}" if n > 1 else "/a.mp3")] for n in range(1, 6)}
    resolver = Resolver(music_example=[PUBLIC])
    assert await contents(f"http://music.example:{public.port}/3", resolver, fetch_max_redirects=3) == AUDIO
    with pytest.raises(FetchFailed, match="3 redirects"):
        await contents(f"http://music.example:{public.port}/4", resolver, fetch_max_redirects=3)


async def test_no_error_tells_a_query(public: Site) -> None:
    public.answers |= {
        "/403": [reply(403)],
        "/503": [reply(503)],
        "/out": [redirect("http://127.0.0.2/a?token=secret")],
        "/large": [audio],
    }
    for path in ("404", "403", "503", "out", "large"):
        with pytest.raises((FetchFailed, NotFound, FetchRefused, TooLarge)) as caught:
            await contents(
                f"http://music.example:{public.port}/{path}?token=secret#secret",
                Resolver(music_example=[PUBLIC]),
                fetch_max_bytes=1000,
            )
        assert "secret" not in "".join(map(str, (caught.value, caught.value.__cause__)))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("status", [404, 410])
async def test_a_missing_file_is_not_found_and_asked_for_once(status: int, public: Site) -> None:
    public.answers["/gone"] = [reply(status)]
    with pytest.raises(NotFound, match=str(status)):
        await contents(f"http://music.example:{public.port}/gone", Resolver(music_example=[PUBLIC]))
    assert len(public.requests) == 1


@pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 401, 403, 418])
async def test_another_answer_fails_for_good(status: int, public: Site) -> None:
    public.answers["/no"] = [reply(status)]
    with pytest.raises(FetchFailed, match=str(status)):
        await contents(f"http://music.example:{public.port}/no", Resolver(music_example=[PUBLIC]))
    assert len(public.requests) == 1


async def hang_up(request: web.Request) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(AUDIO))})
    await response.prepare(request)
    await response.write(AUDIO[:1000])
    request.transport.close()
    return response


@pytest.mark.parametrize("trouble", [408, 425, 429, 500, 502, 503, 504, hang_up, half])
async def test_transient_trouble_is_tried_again(trouble: object, public: Site) -> None:
    answer = trouble if callable(trouble) else reply(trouble)
    public.answers["/b.mp3"] = [answer, answer, audio]
    resolver = Resolver(music_example=[PUBLIC])
    assert await contents(f"http://music.example:{public.port}/b.mp3", resolver) == AUDIO
    assert len(public.requests) == 3
    public.answers["/c.mp3"] = [answer]
    with pytest.raises(FetchFailed, match="each of 4 tries"):
        await contents(f"http://music.example:{public.port}/c.mp3", resolver)
    assert len(public.requests) == 7 or trouble is hang_up  # aiohttp asks a second time by itself after a hang-up


async def test_a_name_server_without_an_answer_is_asked_again_and_an_unknown_host_is_not(public: Site) -> None:
    away, unknown = socket.gaierror(socket.EAI_AGAIN, "again"), socket.gaierror(socket.EAI_NONAME, "unknown")
    resolver = Resolver(music_example=[away, away, PUBLIC], no_example=[unknown])
    assert await contents(f"http://music.example:{public.port}/a.mp3", resolver) == AUDIO
    with pytest.raises(FetchFailed, match="unknown host"):
        await contents(f"http://no.example:{public.port}/a.mp3", resolver)
    assert resolver.asked == ["music.example"] * 3 + ["no.example"]


async def test_a_refused_connection_is_tried_again() -> None:
    with socket.socket() as bound:
        bound.bind((PUBLIC, 0))
        with pytest.raises(FetchFailed, match="each of 2 tries"):
            await contents(f"http://{PUBLIC}:{bound.getsockname()[1]}/a", fetch_attempts=2)


async def test_a_slow_drip_ends_with_the_time_and_leaves_no_descriptor(public: Site) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not request.transport.is_closing():
                await response.write(b"x")
                await asyncio.sleep(0.02)
        return response

    public.answers["/drip"] = [drip]
    before = open_files()
    with pytest.raises(FetchFailed, match=r"within 0\.5 s"):
        await contents(
            f"http://music.example:{public.port}/drip", Resolver(music_example=[PUBLIC]), fetch_timeout_s=0.5
        )
    assert len(public.requests) == 1
    assert open_files() == before


async def test_a_silent_server_is_tried_again_within_the_time(public: Site) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    public.answers["/b.mp3"] = [silent, audio]
    resolver = Resolver(music_example=[PUBLIC])
    assert (
        await contents(f"http://music.example:{public.port}/b.mp3", resolver, fetch_timeout_s=4, fetch_attempts=8)
        == AUDIO
    )


OK = b"HTTP/1.1 200 OK\r\n"


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


NEVER_ENDING = {
    "a status line": raw(b"HTTP/1.1 200 ", b"O" * 4096),
    "a dripping status line": raw(b"HTTP/1.1 200 ", b"O", every_s=0.01),
    "a header": raw(OK + b"X: ", b"x" * 4096),
    "headers": raw(OK, b"X: x\r\n" * 100),
    "dripping headers": raw(OK, b"X: x\r\n", every_s=0.01),
    "interim answers": raw(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    "a chunk length": raw(CHUNKED, b"0" * 4096),
    "a chunk extension": raw(CHUNKED + b"1;", b"x" * 4096),
    "tiny chunks": raw(CHUNKED, b"1\r\nx\r\n" * 1000),
    "dripping chunks": raw(CHUNKED, b"1\r\nx\r\n", every_s=0.01),
    "trailers": raw(CHUNKED + b"0\r\n", b"X: x\r\n" * 100),
    "a body without length": raw(OK + b"\r\n", b"x" * 65536),
    "a dripping body": raw(OK + b"Content-Length: 1000000\r\n\r\n", b"x", every_s=0.01),
    "a body that is no answer": raw(b"", b"\0" * 4096),
}


NO_HTTP = {
    "nothing": raw(b""),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "two lengths": raw(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    "a negative length": raw(OK + b"Content-Length: -1\r\n\r\n"),
    "a length that is no number": raw(OK + b"Content-Length: 1e3\r\n\r\n"),
    "a length and chunks": raw(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nxx"),
    "a chunk that lies": raw(CHUNKED + b"ffffffffffffffffff\r\nx"),
    "a negative chunk": raw(CHUNKED + b"-1\r\nx"),
    "a header in the body's place": raw(b"HTTP/9.9 999 \xff\r\n: \r\n\r\n"),
}


@pytest.mark.parametrize("what", NEVER_ENDING)
async def test_what_never_ends_is_given_up_in_time_with_little_memory(what: str) -> None:
    before = open_files()
    tracemalloc.start()
    try:
        async with raw_server(NEVER_ENDING[what]) as uri:
            started = asyncio.get_running_loop().time()
            with pytest.raises((FetchFailed, TooLarge)):
                await contents(uri, Resolver(music_example=[PUBLIC]), fetch_timeout_s=1.0, fetch_max_bytes=2_000_000)
            assert asyncio.get_running_loop().time() - started < 20
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert open_files() == before


@pytest.mark.parametrize("what", NO_HTTP)
async def test_what_speaks_no_http_fails(what: str) -> None:
    async with raw_server(NO_HTTP[what]) as uri:
        with pytest.raises(FetchFailed):
            await contents(uri, Resolver(music_example=[PUBLIC]), fetch_timeout_s=5.0, fetch_attempts=2)


async def test_redirects_that_drip_end_with_the_time_of_one_download(public: Site) -> None:
    async def slow_hop(request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        raise web.HTTPFound(f"/{int(request.path[1:]) + 1}")

    public.answers |= {f"/{number}": [slow_hop] for number in range(100)}
    with pytest.raises(FetchFailed, match=r"within 0\.5 s"):
        await contents(
            f"http://music.example:{public.port}/0",
            Resolver(music_example=[PUBLIC]),
            fetch_timeout_s=0.5,
            fetch_max_redirects=100,
        )
    assert len(public.requests) <= 4


async def test_a_cancelled_download_leaves_no_descriptor(public: Site) -> None:
    started = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(AUDIO)
        started.set()
        await asyncio.Event().wait()
        return response

    public.answers["/stall"] = [stall]
    before = open_files()
    async with fetcher(Resolver(music_example=[PUBLIC])) as fetch:
        task = asyncio.create_task(fetch.fetch(f"http://music.example:{public.port}/stall"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert open_files() == before


async def test_a_body_that_is_compressed_all_the_same_is_refused(public: Site) -> None:
    public.answers["/z"] = [reply(200, body=b"x", headers={"Content-Encoding": "gzip"})]
    with pytest.raises(FetchFailed, match="gzip"):
        await contents(f"http://music.example:{public.port}/z", Resolver(music_example=[PUBLIC]))


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=music.example"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_certificate_that_nobody_trusts_fails_for_good(self_signed: ssl.SSLContext) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, PUBLIC, 0, ssl_context=self_signed).start()
    try:
        resolver = Resolver(music_example=[PUBLIC])
        with pytest.raises(FetchFailed, match="certificate"):
            await contents(f"https://music.example:{runner.addresses[0][1]}/a", resolver)
        assert len(resolver.asked) == 1
    finally:
        await runner.cleanup()


async def test_an_object_of_an_allowed_bucket_is_read(bucket: str) -> None:
    assert await contents(f"{bucket}/a b%20.mp3", allowed_buckets=(bucket + "/",)) == AUDIO
    assert await contents(f"MEMORY{bucket[6:]}/a b%20.mp3", allowed_buckets=(bucket,)) == AUDIO


async def test_a_missing_and_a_large_object(bucket: str) -> None:
    with pytest.raises(NotFound):
        await contents(f"{bucket}/not-there", allowed_buckets=(bucket,))
    with pytest.raises(TooLarge):
        await contents(f"{bucket}/a b%20.mp3", allowed_buckets=(bucket,), fetch_max_bytes=1000)


async def test_a_bucket_without_its_package_is_refused() -> None:
    with pytest.raises(FetchRefused, match="package"):
        await contents("nosuchscheme://music/a.mp3", allowed_buckets=("nosuchscheme://music",))


async def test_a_failing_bucket_is_tried_again_and_a_forbidden_one_is_not(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    plain_open, errors = type(memory).open, [OSError("reset"), RuntimeError("secret"), PermissionError("secret")]

    def failing(self: object, *arguments: object, **options: object) -> object:
        raise errors.pop(0)

    monkeypatch.setattr(type(memory), "open", failing)
    with pytest.raises(FetchFailed, match="credentials") as caught:
        await contents(f"{bucket}/a b%20.mp3", allowed_buckets=(bucket,))
    assert errors == []
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(type(memory), "open", plain_open)
    assert await contents(f"{bucket}/a b%20.mp3", allowed_buckets=(bucket,)) == AUDIO


@pytest.mark.parametrize(("every_s", "error"), [(0.0, TooLarge), (0.01, FetchFailed)])
async def test_an_object_that_never_ends_or_drips_is_given_up(
    bucket: str, every_s: float, error: type[FetchError], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless:
        closed = threading.Event()

        def read(self, length: int) -> bytes:
            self.closed.wait(every_s)
            return bytes(length if every_s == 0.0 else 1)

        def __enter__(self) -> "Endless":
            return self

        def __exit__(self, *_: object) -> None:
            self.closed.set()

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", lambda *_, **__: Endless())
    with pytest.raises(error):
        await contents(f"{bucket}/a", allowed_buckets=(bucket,), fetch_timeout_s=0.3, fetch_max_bytes=4_000_000)
    assert await asyncio.to_thread(Endless.closed.wait, 10)  # nothing goes on reading


HANGING_BUCKET = """
import asyncio, threading
import fsspec
from models.errors import FetchFailed
from stream.audio.fetch import Fetcher
from stream.settings import load_settings

class Hanging(fsspec.AbstractFileSystem):
    def open(self, *arguments, **options):
        threading.Event().wait()

async def main():
    settings = load_settings(allowed_buckets="hanging://music", file_roots="/etc", fetch_timeout_s=0.5).fetch
    async with Fetcher(settings) as fetch:
        for _ in range(2):
            fetches = [fetch.fetch("hanging://music/a") for _ in range(50)]
            outcomes = await asyncio.gather(*fetches, return_exceptions=True)
            assert all(isinstance(outcome, FetchFailed) for outcome in outcomes), outcomes
        (await fetch.fetch("file:///etc/passwd")).close()

fsspec.register_implementation("hanging", Hanging)
asyncio.run(main())
print("done")
"""


async def test_a_bucket_that_hangs_holds_up_neither_other_work_nor_the_end_of_the_process() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGING_BUCKET, stdout=subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, output.strip()) == (0, b"done")
