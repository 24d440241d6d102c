import asyncio
import contextlib
import hashlib
import ipaddress
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import aiohttp.abc
import fsspec
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

import stream.audio.fetch
from models.errors import FetchError, FetchFailed, FetchRefused, NotFound, TooLarge
from stream.audio.fetch import Fetched, Fetcher, is_public
from stream.settings import load_settings

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
AUDIO = os.urandom(3_000_000)
PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"  # two loopback addresses stand for the two kinds; nothing else is dialled


class Resolver(aiohttp.abc.AbstractResolver):
    """Answers from a table; a host with several answers gives them in turn, the last for ever."""

    def __init__(self, **answers: list[object]) -> None:
        self.answers = {host.replace("_", "."): list(given) for host, given in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list:
        self.asked.append(host)
        answers = self.answers[host]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        addresses = [answer] if isinstance(answer, str) else answer
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class NumericResolver(Resolver):
    """The system's reading of numeric spellings, and localhost; asks no name server."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list:
        if host in self.answers:
            return await super().resolve(host, port, family)
        flags = 0 if host == "localhost" else socket.AI_NUMERICHOST
        self.answers[host] = [[found[4][0] for found in socket.getaddrinfo(host, port, flags=flags)]]
        return await super().resolve(host, port, family)


class Site:
    """A web server on one loopback address; `answers` maps a path to what its requests get, one after the other."""

    def __init__(self, host: str) -> None:
        self.host, self.answers, self.requests = host, {}, []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answers = self.answers.get(request.path, [reply(404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return await answer(request)

    async def start(self, port: int = 0) -> None:
        self.runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
        self.runner.app.router.add_route("*", "/{path:.*}", self.handle)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.host, port).start()
        self.port = self.runner.addresses[0][1]


@pytest.fixture
async def public() -> AsyncIterator[Site]:
    site = Site(PUBLIC)
    await site.start()
    site.answers["/a.mp3"] = [audio]
    yield site
    await site.runner.cleanup()


@pytest.fixture
async def private(public: Site) -> AsyncIterator[Site]:
    """The forbidden target, on the same port; every test that has it wants it untouched."""
    site = Site(PRIVATE)
    await site.start(public.port)
    site.answers["/a.mp3"] = [audio]
    yield site
    await site.runner.cleanup()
    assert site.requests == []


@pytest.fixture(autouse=True)
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address that is dialled; none but loopback is ever reached."""
    addresses: list[str] = []
    sock_connect = asyncio.SelectorEventLoop.sock_connect

    async def record(self: asyncio.SelectorEventLoop, sock: socket.socket, address: tuple) -> None:
        addresses.append(address[0])
        if not ipaddress.ip_address(address[0]).is_loopback:
            raise AssertionError(f"{address} would have been dialled")
        await sock_connect(self, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", record)
    return addresses


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One loopback address counts as public beside those that are."""
    monkeypatch.setattr(stream.audio.fetch, "is_public", lambda address: address == PUBLIC or is_public(address))


def reply(status: int, **options: object) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, **options)

    return answer


def redirect(location: str, status: int = 302, **headers: str) -> Answer:
    return reply(
        status, headers={"Location": location} | {name.replace("_", "-"): text for name, text in headers.items()}
    )


async def audio(request: web.Request) -> web.Response:
    return web.Response(body=AUDIO, content_type="audio/mpeg")


def fetcher(resolver: Resolver | None = None, **settings: object) -> Fetcher:
    return Fetcher(load_settings(**settings).fetch, resolver=resolver or Resolver(), backoff_s=0.001)


async def contents(uri: str, resolver: Resolver | None = None, **settings: object) -> bytes:
    async with fetcher(resolver, **settings) as fetch:
        with await fetch.fetch(uri) as fetched:
            return checked(fetched)


def checked(fetched: Fetched) -> bytes:
    read = fetched.file.read()
    assert len(read) == fetched.size_bytes
    assert hashlib.sha256(read).hexdigest() == fetched.content_hash
    return read


# --- the address gate


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_public_as_the_registry_says(ip: ipaddress.IPv4Address) -> None:
    kept = ip in ipaddress.ip_network("192.0.0.0/24") or str(ip) == "168.63.129.16"
    assert is_public(str(ip)) == (ip.is_global and not ip.is_multicast and not ip.is_reserved and not kept)


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_outside_global_unicast_is_public(ip: ipaddress.IPv6Address) -> None:
    if ip not in ipaddress.ip_network("2000::/3") and ip.ipv4_mapped is None:
        assert ip in ipaddress.ip_network("64:ff9b::/96") or not is_public(str(ip))


@given(st.integers(0, 2**125 - 1))
def test_global_unicast_is_public_but_for_its_reserved_parts(low: int) -> None:
    ip = ipaddress.IPv6Address((1 << 125) + low)
    reserved = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]
    if not any(ip in ipaddress.ip_network(network) for network in reserved):
        assert is_public(str(ip))


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:", "64:ff9b::"]))
def test_an_ipv4_address_in_an_ipv6_one_counts_as_itself(ip: ipaddress.IPv4Address, prefix: str) -> None:
    assert is_public(f"{prefix}{ip}") == is_public(str(ip))


@given(st.ip_addresses(v=4), st.integers(0, 2**80 - 1))
def test_tunnel_addresses_are_never_public(ip: ipaddress.IPv4Address, low: int) -> None:
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (int(ip) << 80) | low)))
    assert not is_public(str(ipaddress.IPv6Address((0x20010000 << 96) | (int(ip) << 64) | (low >> 16))))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.2.1"),
        *(
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ),
        *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::10.0.0.1"),
        *("64:ff9b:1::808:808", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff0e::1"),
        *("2001:db8::1", "2002:7f00:1::", "2002:808:808::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "3fff::1"),
    ],
)
def test_a_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


# --- http


async def test_a_download_lies_in_an_unlinked_file_with_its_size_and_hash(
    public: Site, gate: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with fetcher(Resolver(music_example=[PUBLIC])) as fetch:
        with await fetch.fetch(f"http://music.example:{public.port}/a.mp3") as fetched:
            assert checked(fetched) == AUDIO
            assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - an empty folder
            assert [path for path in open_files() if path.startswith(str(tmp_path))] != []
        fetched.close()
        assert fetched.file.closed


async def test_a_request_carries_no_cookie_no_proxy_and_asks_for_the_bytes_as_they_are(
    public: Site, gate: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.2:1")
    public.answers["/set"] = [redirect("/a.mp3", Set_Cookie="session=1")]
    assert await contents(f"http://music.example:{public.port}/set", Resolver(music_example=[PUBLIC])) == AUDIO
    assert [request.path for request in public.requests] == ["/set", "/a.mp3"]
    for request in public.requests:
        assert request.headers["Accept-Encoding"] == "identity"
        assert not {"Cookie", "Authorization", "Referer"} & set(request.headers)


async def test_a_name_that_leads_to_a_private_address_is_refused(public: Site, private: Site, gate: None) -> None:
    for answer in (PRIVATE, [PRIVATE, "127.0.0.3"], f"::ffff:{PRIVATE}", "::1"):
        with pytest.raises(FetchRefused, match="not public"):
            await contents(f"http://music.example:{public.port}/a.mp3", Resolver(music_example=[answer]))


async def test_a_name_with_a_public_and_a_private_address_is_fetched_from_the_public_one(
    public: Site, private: Site, gate: None
) -> None:
    for answer in ([PRIVATE, PUBLIC], [PUBLIC, PRIVATE]):
        assert await contents(f"http://music.example:{public.port}/a.mp3", Resolver(music_example=[answer])) == AUDIO


async def test_a_dns_answer_that_changes_between_check_and_connect_reaches_nothing_private(
    public: Site, private: Site, gate: None
) -> None:
    resolver = Resolver(music_example=[PUBLIC, PRIVATE])
    assert await contents(f"http://music.example:{public.port}/a.mp3", resolver) == AUDIO
    assert resolver.asked == ["music.example"]
    public.answers["/again"] = [redirect(f"http://other.example:{public.port}/a.mp3")]
    resolver = Resolver(music_example=[PUBLIC], other_example=[PRIVATE])
    with pytest.raises(FetchRefused):
        await contents(f"http://music.example:{public.port}/again", resolver)


SPELLINGS = (  # of private, loopback, link-local and metadata addresses
    *("127.0.0.2", "127.2", "2130706434", "0x7f000002", "0x7f.0.0.2", "0177.0.0.2", "017700000002", "127.0.0.2."),
    *("[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[64:ff9b::7f00:2]", "%31%32%37.0.0.2", "１２７.0.0.2", "localhost"),
    *("[::1]", "[::]", "[::1%25lo]", "0.0.0.0", "0", "10.0.0.1", "0xa.0.0.1", "172.16.0.1", "192.168.0.1", "[fc00::1]"),
    *("[fd00::1]", "[fec0::1]", "169.254.0.1", "[fe80::1]", "[fe80::1%25eth0]", "[::ffff:10.0.0.1]", "[::ffff:a00:1]"),
    *("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "[fd00:ec2::254]"),
    *("[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "168.63.129.16"),
    *("100.100.100.200", "192.0.0.192", "[::ffff:168.63.129.16]"),
)


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_a_private_address_is_dialled(host: str, dialled: list[str]) -> None:
    with pytest.raises(FetchRefused):
        await contents(f"http://{host}:8080/a.mp3", NumericResolver())
    assert dialled == []


@pytest.mark.parametrize("host", [host for host in SPELLINGS if host != "localhost"])  # which PUBLIC is, too
async def test_no_redirect_to_a_private_address_is_followed(
    host: str, public: Site, gate: None, dialled: list[str]
) -> None:
    public.answers["/hop"] = [redirect(f"http://{host}:{public.port}/a.mp3")]
    with pytest.raises(FetchRefused):
        await contents(f"http://{PUBLIC}:{public.port}/hop", NumericResolver())
    assert dialled == [PUBLIC]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.2", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16"),
        *("::1", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "0.0.0.0", "::"),
    ],
)
async def test_no_name_of_a_private_address_is_dialled(address: str, dialled: list[str]) -> None:
    with pytest.raises(FetchRefused, match="not public"):
        await contents("http://metadata.example/latest", Resolver(metadata_example=[address]))
    assert dialled == []


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/a.mp3", "//private.example:{port}/a.mp3", "http://[::ffff:127.0.0.2]:{port}/a"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_passes_the_same_gate(
    target: str, status: int, public: Site, private: Site, gate: None
) -> None:
    location = target.format(port=public.port)
    public.answers["/hop"] = [redirect(location, status)]
    resolver = Resolver(music_example=[PUBLIC], private_example=[PRIVATE])
    with pytest.raises(FetchRefused):
        await contents(f"http://music.example:{public.port}/hop", resolver)


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/hostname", "ftp://music.example/a", "http://user:pw@music.example/a", "gopher://x/", "http://["),
        *("//user:pw@music.example/a", "https:user:pw@music.example"),
        *("simplecache::http://music.example/a", "zip://a.mp3::http://music.example/a.zip?pw", "memory://music/a.mp3"),
        *(
            "data:audio/mpeg;base64,pw",
            "http://music.example:99999/?pw",
            "http://[::1%25/?pw",
            "http://a b/?pw",
        ),
    ],
)
async def test_a_redirect_to_another_scheme_or_with_a_password_is_refused(
    location: str, public: Site, gate: None
) -> None:
    public.answers["/hop"] = [redirect(location)]
    with pytest.raises(FetchRefused) as caught:
        await contents(
            f"http://music.example:{public.port}/hop",
            Resolver(music_example=[PUBLIC]),
            file_roots=("/etc",),
            allowed_buckets=("memory://music",),
        )
    assert "pw" not in str(caught.value)


async def test_redirects_are_followed_as_far_as_allowed(public: Site, gate: None) -> None:
    public.answers |= {f"/{n}": [redirect(f"/{n - 1}" if n > 1 else "/a.mp3")] for n in range(1, 6)}
    resolver = Resolver(music_example=[PUBLIC])
    assert await contents(f"http://music.example:{public.port}/3", resolver, fetch_max_redirects=3) == AUDIO
    with pytest.raises(FetchFailed, match="3 redirects"):
        await contents(f"http://music.example:{public.port}/4", resolver, fetch_max_redirects=3)


async def test_an_allowed_host_may_be_private_and_no_other_becomes_so(public: Site, gate: None) -> None:
    site = Site(PRIVATE)
    await site.start(public.port)
    site.answers["/a.mp3"] = [audio]
    try:
        resolver = Resolver(store_internal=[PRIVATE], other_internal=[PRIVATE])
        allowed = ("Store.internal", "127.0.0.2")
        for host in ("store.internal", "STORE.internal", "127.0.0.2"):
            assert await contents(f"http://{host}:{public.port}/a.mp3", resolver, allowed_hosts=allowed) == AUDIO
        assert len(site.requests) == 3
        with pytest.raises(FetchRefused):
            await contents(f"http://other.internal:{public.port}/a.mp3", resolver, allowed_hosts=allowed)
        assert len(site.requests) == 3
    finally:
        await site.runner.cleanup()


@pytest.mark.parametrize(
    "uri",
    [
        *("http://user:secret@music.example/a", "http://secret@music.example/a", "http://:secret@music.example/a"),
        *("http://user:sec?ret@music.example/a", "http:user:secret@music.example", "http:///a", "https://"),
        *("http://music.example:99999/a", "http://[::1", "http:\\\\music.example\\a", "http://a b/"),
        *(f"http://{'a' * 64}.example/", "http://a..b/", "http://.a/", "http://a\r\nHost: b/", "http://a%0d%0a/"),
        *("", "nothing", "ftp://music.example/a", "gopher://music.example/", "data:audio/mpeg;base64,secret"),
        *("javascript:secret", "://", "zip://a.mp3::http://music.example/a.zip", "simplecache::http://music.example/a"),
        *("http+unix://%2Fsecret", "local:///etc/hostname", "sftp://user:secret@host/a", "http://\ud800/"),
        *("https://user:secret%40music.example/a", "http://user:sec/ret@music.example/a", "http:///user:secret@x/"),
    ],
)
async def test_what_is_no_plain_address_is_refused_without_a_word_of_its_secrets(uri: str) -> None:
    with pytest.raises(FetchRefused) as caught:
        await contents(uri, NumericResolver())
    assert "sec" not in str(caught.value).removeprefix("http+unix://%2Fsecret")


async def test_no_error_tells_a_query(public: Site, gate: None) -> None:
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
async def test_a_missing_file_is_not_found_and_asked_for_once(status: int, public: Site, gate: None) -> None:
    public.answers["/gone"] = [reply(status)]
    with pytest.raises(NotFound, match=str(status)):
        await contents(f"http://music.example:{public.port}/gone", Resolver(music_example=[PUBLIC]))
    assert len(public.requests) == 1


@pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 401, 403, 418])
async def test_another_answer_fails_for_good(status: int, public: Site, gate: None) -> None:
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
async def test_transient_trouble_is_tried_again(trouble: object, public: Site, gate: None) -> None:
    answer = trouble if callable(trouble) else reply(trouble)
    public.answers["/b.mp3"] = [answer, answer, audio]
    resolver = Resolver(music_example=[PUBLIC])
    assert await contents(f"http://music.example:{public.port}/b.mp3", resolver) == AUDIO
    assert len(public.requests) == 3
    public.answers["/c.mp3"] = [answer]
    with pytest.raises(FetchFailed, match="each of 4 tries"):
        await contents(f"http://music.example:{public.port}/c.mp3", resolver)
    assert len(public.requests) == 7 or trouble is hang_up  # aiohttp asks a second time by itself after a hang-up


async def test_a_name_server_without_an_answer_is_asked_again_and_an_unknown_host_is_not(
    public: Site, gate: None
) -> None:
    away, unknown = socket.gaierror(socket.EAI_AGAIN, "again"), socket.gaierror(socket.EAI_NONAME, "unknown")
    resolver = Resolver(music_example=[away, away, PUBLIC], no_example=[unknown])
    assert await contents(f"http://music.example:{public.port}/a.mp3", resolver) == AUDIO
    with pytest.raises(FetchFailed, match="unknown host"):
        await contents(f"http://no.example:{public.port}/a.mp3", resolver)
    assert resolver.asked == ["music.example"] * 3 + ["no.example"]


async def test_a_refused_connection_is_tried_again(gate: None) -> None:
    with socket.socket() as bound:
        bound.bind((PUBLIC, 0))
        with pytest.raises(FetchFailed, match="each of 2 tries"):
            await contents(f"http://{PUBLIC}:{bound.getsockname()[1]}/a", fetch_attempts=2)


async def test_a_size_announced_as_too_large_is_refused_without_its_body(public: Site, gate: None) -> None:
    async def announce(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000001"})
        await response.prepare(request)
        await asyncio.Event().wait()  # and sends none
        return response

    public.answers["/large"] = [announce]
    with pytest.raises(TooLarge, match="1000001 bytes"):
        await contents(
            f"http://music.example:{public.port}/large", Resolver(music_example=[PUBLIC]), fetch_max_bytes=1_000_000
        )
    assert len(public.requests) == 1


async def test_an_endless_body_ends_at_the_limit(public: Site, gate: None) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                await response.write(bytes(1 << 16))
                sent += 1 << 16
        return response

    public.answers["/endless"] = [endless]
    with pytest.raises(TooLarge):
        await contents(
            f"http://music.example:{public.port}/endless", Resolver(music_example=[PUBLIC]), fetch_max_bytes=2_000_000
        )
    assert sent < 64 << 20
    exactly = await contents(
        f"http://music.example:{public.port}/a.mp3", Resolver(music_example=[PUBLIC]), fetch_max_bytes=len(AUDIO)
    )
    assert exactly == AUDIO


async def test_a_slow_drip_ends_with_the_time_and_leaves_no_descriptor(public: Site, gate: None) -> None:
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


async def test_a_silent_server_is_tried_again_within_the_time(public: Site, gate: None) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    public.answers["/b.mp3"] = [silent, audio]
    resolver = Resolver(music_example=[PUBLIC])
    assert (
        await contents(f"http://music.example:{public.port}/b.mp3", resolver, fetch_timeout_s=4, fetch_attempts=8)
        == AUDIO
    )


Raw = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def endless(writer: asyncio.StreamWriter, piece: bytes, *, every_s: float = 0.0) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(every_s)


def raw(start: bytes, piece: bytes = b"", **options: float) -> Raw:
    """A server that answers with some bytes, then with the same piece for ever."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        if piece:
            await endless(writer, piece, **options)

    return answer


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


@contextlib.asynccontextmanager
async def raw_server(answer: Raw) -> AsyncIterator[str]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()

    server = await asyncio.start_server(connected, PUBLIC)
    try:
        yield f"http://music.example:{server.sockets[0].getsockname()[1]}/a.mp3"
    finally:
        server.close()


@pytest.mark.parametrize("what", NEVER_ENDING)
async def test_what_never_ends_is_given_up_in_time_with_little_memory(what: str, gate: None) -> None:
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
async def test_what_speaks_no_http_fails(what: str, gate: None) -> None:
    async with raw_server(NO_HTTP[what]) as uri:
        with pytest.raises(FetchFailed):
            await contents(uri, Resolver(music_example=[PUBLIC]), fetch_timeout_s=5.0, fetch_attempts=2)


async def test_redirects_that_drip_end_with_the_time_of_one_download(public: Site, gate: None) -> None:
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


async def test_a_cancelled_download_leaves_no_descriptor(public: Site, gate: None) -> None:
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


def open_files() -> list[str]:
    """What regular files this process has open."""
    links = (link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_file())
    return sorted(str(link) for link in links if link.is_absolute())


async def test_a_body_that_is_compressed_all_the_same_is_refused(public: Site, gate: None) -> None:
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


async def test_a_certificate_that_nobody_trusts_fails_for_good(gate: None, self_signed: ssl.SSLContext) -> None:
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


# --- whatever they write


scraps = st.sampled_from(
    [
        *(
            "http",
            "https",
            "file",
            "memory",
            "HTTP",
            "s3",
            "zip",
            ":",
            "//",
            "/",
            "\\",
            "@",
            "?",
            "#",
            "::",
            "[",
            "]",
            "%",
        ),
        *(
            "127.0.0.1",
            "[::1]",
            "[::ffff:7f00:1]",
            "0x7f.1",
            "2130706433",
            "localhost",
            "user:secret",
            "music",
            "a.mp3",
        ),
        *(
            "..",
            "%2e%2e",
            "%00",
            "%2f",
            "%40",
            ":80",
            ":99999",
            ":-1",
            "\0",
            "\r\n",
            " ",
            "\ud800",
            "１",
            "。",
            "ß",
            "xn--",
        ),
    ]
)


@given(st.lists(scraps | st.text(max_size=8), min_size=1, max_size=12).map("".join))
async def test_no_uri_raises_anything_but_a_fetch_error_and_none_is_dialled(uri: str) -> None:
    dialled: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.SelectorEventLoop, "sock_connect", lambda _, __, address: dialled.append(address))
        with pytest.raises(FetchError) as caught:
            await contents(uri, NumericResolver(), fetch_attempts=1, allowed_buckets=("memory://music",))
    assert "\n" not in str(caught.value)
    assert dialled == []


@given(st.lists(scraps | st.text(max_size=8), min_size=1, max_size=12).map("".join))
@example("0\x1f//http")
@example("//xn--")
async def test_no_redirect_raises_anything_but_a_fetch_error_and_none_is_dialled(location: str) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        line = re.sub(r"[\0\r\n]", "", location).encode(errors="surrogatepass")
        writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: " + line + b"\r\n\r\n")

    dialled: list[tuple[str, int]] = []
    sock_connect = asyncio.SelectorEventLoop.sock_connect

    async def record(self: asyncio.SelectorEventLoop, sock: socket.socket, address: tuple) -> None:
        dialled.append(address[:2])
        if address[:2] != place:
            raise ConnectionRefusedError
        await sock_connect(self, sock, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.SelectorEventLoop, "sock_connect", record)
        async with raw_server(answer) as uri:
            place = (PUBLIC, URL(uri).port)
            with pytest.raises(FetchError):
                await contents(
                    uri, NumericResolver(music_example=[PUBLIC]), fetch_attempts=1, allowed_hosts=("music.example",)
                )
    assert set(dialled) == {place}


# --- files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a.mp3").write_bytes(AUDIO)
    (tmp_path / "outside.mp3").write_bytes(b"outside")
    return folder


@pytest.mark.parametrize("name", ["a.mp3", "with space.mp3", "100%?#.mp3", "bäng ☃.mp3", "caf\udce9.mp3", "a\n.mp3"])
@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://LOCALHOST", "file:"])
async def test_a_file_under_a_root_is_read_whatever_its_name(root: Path, name: str, start: str) -> None:
    (root / name).write_bytes(AUDIO)
    uri = start + quote(os.fsencode(root / name))
    assert await contents(uri, file_roots=(str(root),)) == AUDIO


async def test_a_file_reached_by_a_link_inside_the_roots_is_read(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("a.mp3")
    (tmp_path / "alias").symlink_to(root)
    assert await contents(f"file://{root}/link", file_roots=(str(root),)) == AUDIO
    assert await contents(f"file://{tmp_path}/alias/a.mp3", file_roots=(str(root),)) == AUDIO
    assert await contents(f"file://{root}/a.mp3", file_roots=(str(tmp_path / "alias"),)) == AUDIO


async def test_nothing_outside_the_roots_is_read(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "outside.mp3")
    (root / "folder").symlink_to(tmp_path)
    (root / "loop").symlink_to("loop")
    (tmp_path / "root-beside").mkdir()
    (tmp_path / "root-beside" / "b.mp3").write_bytes(b"beside")
    for path in (
        *(f"{root}/link", f"{root}/folder/outside.mp3", f"{root}/../outside.mp3", f"{root}/%2e%2e/outside.mp3"),
        *(f"{root}/..%2foutside.mp3", f"{tmp_path}/root-beside/b.mp3", f"{tmp_path}/outside.mp3", "/etc/passwd"),
        *(f"/proc/self/root{tmp_path}/outside.mp3", "/proc/self/environ", "/dev/zero", f"{tmp_path}/not/there"),
        *(f"{tmp_path}/outside.mp3/not", f"//{tmp_path}/outside.mp3", f"{root}/a.mp3/../../outside.mp3", f"{root}/.."),
        *(f"{root}/%2e%2e%2foutside.mp3", f"{root}/./.././outside.mp3", f"{root}/..", "/proc/self/cwd/a", "/dev/fd/0"),
        *("/dev/stdin", f"/proc/{os.getpid()}/root/etc/hostname", "/proc/self/task/self/environ", "/sys/kernel/notes"),
    ):
        with pytest.raises(FetchRefused, match="FILE_ROOTS"):
            await contents(f"file://{path}", file_roots=(str(root),))
    with pytest.raises(FetchFailed):
        await contents(f"file://{root}/loop", file_roots=(str(root),))


async def test_without_roots_no_file_is_read(root: Path) -> None:
    with pytest.raises(FetchRefused):
        await contents(f"file://{root}/a.mp3")


async def test_the_file_that_was_opened_is_the_one_judged(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name changes its meaning right before, and right after the descriptor is opened."""
    plain_open = os.open

    def swap(path: object, *arguments: object, **options: object) -> int:
        swapped = os.fsdecode(path) == f"{root}/swap"
        if swapped and before:
            (root / "swap").unlink()
            (root / "swap").symlink_to(tmp_path / "outside.mp3")
        handle = plain_open(path, *arguments, **options)
        if swapped and not before:
            (root / "swap").unlink()
            (root / "swap").symlink_to(tmp_path / "outside.mp3")
        return handle

    monkeypatch.setattr(os, "open", swap)
    (root / "swap").write_bytes(AUDIO)
    before = True
    with pytest.raises(FetchRefused):
        await contents(f"file://{root}/swap", file_roots=(str(root),))
    (root / "swap").unlink()
    (root / "swap").write_bytes(AUDIO)
    before = False
    assert await contents(f"file://{root}/swap", file_roots=(str(root),)) == AUDIO


@pytest.mark.timeout(20)
async def test_what_is_no_regular_file_is_neither_waited_for_nor_read(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "zero").symlink_to("/dev/zero")
    (root / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        with contextlib.chdir(root):
            unix.bind("socket")
        for name in ("fifo", "zero", "folder", "socket"):
            with pytest.raises(FetchRefused, match="regular"):
                await contents(f"file://{root}/{name}", file_roots=(str(root), "/dev"))


async def test_the_kernels_files_are_never_read_not_even_under_the_root_of_all() -> None:
    for path in ("/proc/self/environ", "/proc/kmsg", "/proc/self/fd/0", "/sys/kernel/notes", "/proc/self/mem"):
        with pytest.raises(FetchRefused):
            await contents(f"file://{path}", file_roots=("/",))


@pytest.mark.parametrize(
    "uri",
    [
        *("file://server/share/a.mp3", "file://127.0.0.1/a.mp3", "file://user@localhost/a.mp3", "file:a.mp3"),
        *(
            "file:",
            "file://",
            "file:///a.mp3%00.txt",
            "file:///a.mp3?x=1",
            "file:///a.mp3#x",
            "file://[/a",
            "file:///a?",
        ),
        *("file://user:secret@localhost/a.mp3", "file://:secret@/a.mp3", "file://user:sec/ret@/a.mp3", "file:\\\\x\\a"),
        *("file://localhost:80/a.mp3", "file://[::1]/a.mp3", "file://localhost%2f..%2fetc/hostname", "file:a/../../b"),
    ],
)
async def test_a_file_uri_that_names_no_local_file_is_refused(uri: str) -> None:
    with pytest.raises(FetchRefused) as caught:
        await contents(uri, file_roots=("/",))
    assert "sec" not in str(caught.value)


async def test_a_missing_a_large_and_a_forbidden_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        await contents(f"file://{root}/not-there.mp3", file_roots=(str(root),))
    with pytest.raises(NotFound):
        await contents(f"file://{root}/a.mp3/deeper", file_roots=(str(root),))
    with pytest.raises(TooLarge):
        await contents(f"file://{root}/a.mp3", file_roots=(str(root),), fetch_max_bytes=len(AUDIO) - 1)
    assert await contents(f"file://{root}/a.mp3", file_roots=(str(root),), fetch_max_bytes=len(AUDIO)) == AUDIO
    plain_open = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: (
            (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
            if str(self).startswith("/proc/self/fd/")
            else plain_open(self, *a, **k)
        ),
    )
    with pytest.raises(FetchFailed, match="Permission denied"):
        await contents(f"file://{root}/a.mp3", file_roots=(str(root),))


# --- buckets


@pytest.fixture
def bucket() -> str:
    memory = fsspec.filesystem("memory")
    memory.pipe("/music/a b%20.mp3", AUDIO)
    memory.pipe("/other/a.mp3", AUDIO)
    return "memory://music"


async def test_an_object_of_an_allowed_bucket_is_read(bucket: str) -> None:
    assert await contents(f"{bucket}/a b%20.mp3", allowed_buckets=(bucket + "/",)) == AUDIO
    assert await contents(f"MEMORY{bucket[6:]}/a b%20.mp3", allowed_buckets=(bucket,)) == AUDIO


async def test_other_buckets_schemes_and_chains_are_refused(bucket: str) -> None:
    for uri in (
        *("memory://other/a.mp3", "memory://musical/a.mp3", "memory://music", "memory://music/", "memory:///music/a"),
        *("simplecache::memory://music/a b%20.mp3", "memory://music/a::memory://other/a.mp3", "s3://music/a.mp3"),
        *("memory:music/a", "memory:/music/a", "memory://user@music/a", "memory://music?x/a"),
        *(
            "memory://music/a::file:///etc/hostname",
            "zip://a.mp3::memory://music/a.zip",
            "filecache::file:///etc/hostname",
        ),
        *("tar://a::memory://music/a.tar", "reference://::memory://music/a", "github://user:secret@music/a"),
        *("dir://a::file:///etc", "local:///etc/hostname", "jar://a::memory://music/a", "memory:\\\\music\\a"),
    ):
        with pytest.raises(FetchRefused):
            await contents(uri, allowed_buckets=(bucket,))
    for key in ("../other/a.mp3", "a/../../other/a.mp3", ".."):
        with pytest.raises(FetchRefused):
            await contents(f"{bucket}/{key}", allowed_buckets=(bucket,))


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
