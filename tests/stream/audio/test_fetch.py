"""How audio is brought here: tries, redirects, time, and each scheme."""

import asyncio
import base64
import contextlib
import gzip
import hmac
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path
from urllib.parse import quote, unquote

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


# --- the address as it was given


AS_GIVEN = (  # each is sent as it stands
    *(
        "/a%2fb%2Fc",
        "/%28x%29(y)",
        "/%7Euser/~user",
        "/a%20b+c",
        "/%e2%98%83",
        "/100%",
        "/a%00b",
        "/a//b///",
        "/a/./../b",
    ),
    *(
        "/a;v=1,2",
        "/a:b@c",
        "/a?",
        "/a??b?c",
        "/a?x=%2f%7e&y=%26&z=a+b%20c",
        "/?X-Amz-Credential=A%2F2026%2Fs3",
        "/a&b=c",
    ),
    *("/a?sig=ab%2Bcd%3D%3d&se=2026-01-01T00%3A00%3A00Z", "/$!*'(a)[0]?[]=1", "/%", "/%zz?%"),
)


@pytest.mark.parametrize("target", AS_GIVEN)
async def test_path_and_query_reach_the_server_as_they_were_given(target: str, public: Site) -> None:
    origin, resolver = f"music.example:{public.port}", Resolver(music_example=[PUBLIC])
    public.answers = {"*": [audio]}
    assert await contents(f"http://{origin}{target}#part", resolver) == AUDIO
    assert public.requests.pop().raw_path == target
    for location in (target, f"http://{origin}{target}", f"//{origin}{target}#part"):
        public.answers = {"*": [redirect(location), audio]}
        assert await contents(f"http://{origin}/first", resolver) == AUDIO
        assert public.requests.pop().raw_path == target


async def test_what_may_not_stand_in_a_url_is_encoded_and_nothing_else(public: Site) -> None:
    public.answers = {"*": [audio]}
    uri = f'HTTP://MUSIC.example:{public.port}/a b"<é>%7e/☃?q= |%7C#part\n'
    assert await contents(uri, Resolver(music_example=[PUBLIC])) == AUDIO
    assert public.requests[0].raw_path == "/a%20b%22%3C%C3%A9%3E%7e/%E2%98%83?q=%20%7C%7C"
    assert public.requests[0].headers["Host"] == f"music.example:{public.port}"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        *(("c%2Fd", "/a%2Fb//c%2Fd"), ("?y=%7E", "/a%2Fb//start%28?y=%7E"), ("../c%20d?z", "/a%2Fb/c%20d?z")),
        *(("./%2e%2e", "/a%2Fb//%2e%2e"), ("c?", "/a%2Fb//c?"), (":c", "/a%2Fb//:c"), ("./c:d/e", "/a%2Fb//c:d/e")),
        *((".", "/a%2Fb//"), ("..", "/a%2Fb/"), ("../../../../c", "/c"), ("c/../d//e#f", "/a%2Fb//d//e")),
    ],
)
async def test_a_relative_redirect_keeps_the_encodings_of_its_base(location: str, target: str, public: Site) -> None:
    public.answers = {"*": [redirect(location), audio]}
    uri = f"http://music.example:{public.port}/a%2Fb//start%28?x"
    assert await contents(uri, Resolver(music_example=[PUBLIC])) == AUDIO
    assert [request.raw_path for request in public.requests] == ["/a%2Fb//start%28?x", target]


@pytest.mark.parametrize("path", ["/music/a%2Fb%28live%29%7E.mp3", "/music/a+b%20c.mp3", "/music/%C3%A9//x.mp3"])
@pytest.mark.parametrize("redirected", [False, True])
async def test_a_url_whose_very_text_was_signed_is_fetched(path: str, redirected: bool, public: Site) -> None:
    """As object stores and CDNs sign: the server computes the signature of the text that it receives."""

    def signature(text: str) -> str:
        return base64.b64encode(hmac.digest(b"key", text.encode(), "sha256")).decode()

    async def check(request: web.Request) -> web.StreamResponse:
        text, _, given = request.raw_path.partition("&Signature=")
        return await (audio if unquote(given) == signature(text) else reply(403))(request)

    text = f"{path}?Expires=1900000000&response-content-type=audio%2fmpeg&Credential=A%2F2026%2Fs3%2f~"
    signed = f"{text}&Signature={quote(signature(text), safe='')}"
    public.answers = {"*": [redirect(signed), check] if redirected else [check]}
    start = "/start" if redirected else signed
    assert await contents(f"http://music.example:{public.port}{start}", Resolver(music_example=[PUBLIC])) == AUDIO


# --- content codings


def deflated(data: bytes, window_bits: int) -> bytes:
    packer = zlib.compressobj(wbits=window_bits)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    "value",
    ["", " ", "identity", "IDENTITY", "aws-chunked", "aws-chunked,", "utf-8", "UTF-8", "binary", "identity, binary"],
)
async def test_a_content_encoding_that_changes_nothing_is_ignored(value: str, public: Site) -> None:
    public.answers["/z"] = [reply(200, body=AUDIO, headers={"Content-Encoding": value})]
    assert await contents(f"http://music.example:{public.port}/z", Resolver(music_example=[PUBLIC])) == AUDIO


SONG = AUDIO[:1_000_000] + bytes(2_000_000)
GZIPPED = gzip.compress(SONG)
PACKED = {
    "gzip": ("gzip", GZIPPED),
    "x-gzip": ("X-GZip", GZIPPED),
    "gzip among others": ("aws-chunked, gzip", GZIPPED),
    "members": ("gzip", b"".join(gzip.compress(SONG[start : start + 7]) for start in range(0, 70_000, 7))),
    "zeros behind the end": ("gzip", GZIPPED + bytes(1000)),
    "deflate": ("deflate", deflated(SONG, 15)),
    "deflate without header": ("deflate", deflated(SONG, -15)),
    "nothing": ("gzip", b""),
}


@pytest.mark.parametrize("what", PACKED)
async def test_gzip_and_deflate_are_undone(what: str, public: Site) -> None:
    value, body = PACKED[what]
    public.answers["/z"] = [reply(200, body=body, headers={"Content-Encoding": value})]
    expected = {"members": SONG[:70_000], "nothing": b""}.get(what, SONG)
    assert await contents(f"http://music.example:{public.port}/z", Resolver(music_example=[PUBLIC])) == expected


@pytest.mark.parametrize("value", ["br", "zstd", "compress", "gzip, gzip", "deflate, br", "x" * 100])
async def test_another_content_encoding_is_refused(value: str, public: Site) -> None:
    public.answers["/z"] = [reply(200, body=b"x", headers={"Content-Encoding": value})]
    with pytest.raises(FetchFailed, match=f"Content-Encoding '{value[:10]}") as caught:
        await contents(f"http://music.example:{public.port}/z", Resolver(music_example=[PUBLIC]))
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("body", [b"no gzip", GZIPPED[:-8] + b"x" * 8, GZIPPED + b"x" * 20])
async def test_what_is_not_the_gzip_that_was_announced_fails_for_good(body: bytes, public: Site) -> None:
    public.answers["/z"] = [reply(200, body=body, headers={"Content-Encoding": "gzip"})]
    with pytest.raises(FetchFailed, match="not in gzip"):
        await contents(f"http://music.example:{public.port}/z", Resolver(music_example=[PUBLIC]))
    assert len(public.requests) == 1


async def test_a_gzip_whose_end_is_missing_is_tried_again(public: Site) -> None:
    whole = GZIPPED
    answers = [reply(200, body=body, headers={"Content-Encoding": "gzip"}) for body in (whole[:-4], whole)]
    public.answers["/z"] = answers
    assert await contents(f"http://music.example:{public.port}/z", Resolver(music_example=[PUBLIC])) == SONG
    assert len(public.requests) == 2


EMPTY_BLOCKS = b"\0\0\0\xff\xff"
BOMBS = {
    "one that expands": deflated(bytes(100 << 20), 31),
    "empty members": gzip.compress(b"") * 200_000,
    "empty blocks": gzip.compress(b"")[:10] + EMPTY_BLOCKS * 1_000_000,
    "an endless name": b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 5_000_000,
}


@pytest.mark.parametrize("what", BOMBS)
async def test_a_gzip_bomb_is_too_large_soon_and_with_little_memory(what: str, public: Site) -> None:
    async def in_chunks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(BOMBS[what])
        return response

    public.answers["/z"] = [in_chunks]
    async with fetcher(Resolver(music_example=[PUBLIC]), fetch_max_bytes=3_000_000) as fetch:
        tracemalloc.start()
        try:
            started = asyncio.get_running_loop().time()
            with pytest.raises(TooLarge):
                await fetch.fetch(f"http://music.example:{public.port}/z")
            assert asyncio.get_running_loop().time() - started < 10
            assert tracemalloc.get_traced_memory()[1] < 24 << 20
        finally:
            tracemalloc.stop()


async def test_a_gzip_that_never_ends_is_given_up_in_time_and_leaves_no_descriptor() -> None:
    before = open_files()
    head = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10]
    async with raw_server(raw(head, b"\0\0\0\xff\xff", every_s=0.01)) as uri:
        with pytest.raises(FetchFailed, match=r"within 0\.5 s"):
            await contents(uri, Resolver(music_example=[PUBLIC]), fetch_timeout_s=0.5)
    assert open_files() == before


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


async def test_an_object_that_is_kept_in_gzip_is_undone_as_its_store_would_over_the_web(bucket: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/music/packed.wav", GZIPPED)
    memory.pipe("/music/bomb.wav", gzip.compress(bytes(100 << 20)))
    assert await contents(f"{bucket}/packed.wav", allowed_buckets=(bucket,)) == SONG
    with pytest.raises(TooLarge):
        await contents(f"{bucket}/bomb.wav", allowed_buckets=(bucket,), fetch_max_bytes=3_000_000)


@pytest.mark.parametrize("key", ["a::b.mp3", "ns::artist::song.mp3", "::a", "a::", "a:::b", "folder::/../a"])
async def test_a_key_with_colons_is_an_object_of_its_bucket(key: str, bucket: str) -> None:
    if ".." in key:
        with pytest.raises(FetchRefused):
            await contents(f"{bucket}/{key}", allowed_buckets=(bucket,))
        return
    fsspec.filesystem("memory").pipe(f"{bucket}/{key}", AUDIO)
    assert await contents(f"{bucket}/{key}", allowed_buckets=(bucket,)) == AUDIO


async def test_an_object_of_s3_is_asked_for_by_its_very_key(public: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def store(request: web.Request) -> web.StreamResponse:
        headers = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(AUDIO))})
        return web.Response(status=206, headers=headers, body=AUDIO[request.http_range])

    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{PUBLIC}:{public.port}")
    public.answers = {"*": [store]}
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()  # which would keep the endpoint of an earlier test
    try:
        for key in ("a::b.mp3", "artist::song.mp3", "a b%20+%2F~(x).mp3", "é/☃#1?.mp3"):
            assert await contents(f"s3://music/{key}", allowed_buckets=("s3://music",), fetch_attempts=1) == AUDIO
            asked = {unquote(request.raw_path.partition("?")[0]) for request in public.requests}
            assert asked == {f"/music/{key}"}
            public.requests.clear()
    finally:
        kind.clear_instance_cache()


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
