"""What may be reached. The gates are tried in use, by a Fetcher that is asked for each address."""

import asyncio
import contextlib
import ipaddress
import os
import re
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from models.errors import FetchError, FetchFailed, FetchRefused, NotFound, TooLarge
from stream.audio.gates import allowed_host, is_public
from stream.settings import load_settings
from tests.stream.audio.sites import (
    AUDIO,
    PRIVATE,
    PUBLIC,
    NumericResolver,
    Resolver,
    Site,
    audio,
    contents,
    raw_server,
    redirect,
)


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


# --- web addresses


async def test_a_name_that_leads_to_a_private_address_is_refused(public: Site, private: Site) -> None:
    for answer in (PRIVATE, [PRIVATE, "127.0.0.3"], f"::ffff:{PRIVATE}", "::1"):
        with pytest.raises(FetchRefused, match="not public"):
            await contents(f"http://music.example:{public.port}/a.mp3", Resolver(music_example=[answer]))


async def test_a_name_with_a_public_and_a_private_address_is_fetched_from_the_public_one(
    public: Site, private: Site
) -> None:
    for answer in ([PRIVATE, PUBLIC], [PUBLIC, PRIVATE]):
        assert await contents(f"http://music.example:{public.port}/a.mp3", Resolver(music_example=[answer])) == AUDIO


async def test_a_dns_answer_that_changes_between_check_and_connect_reaches_nothing_private(
    public: Site, private: Site
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
        await contents(f"http://{host}:8080/a.mp3", NumericResolver(), as_shipped=True)
    assert dialled == []


@pytest.mark.parametrize("host", [host for host in SPELLINGS if host != "localhost"])  # which PUBLIC is, too
async def test_no_redirect_to_a_private_address_is_followed(host: str, public: Site, dialled: list[str]) -> None:
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
        await contents("http://metadata.example/latest", Resolver(metadata_example=[address]), as_shipped=True)
    assert dialled == []


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/a.mp3", "//private.example:{port}/a.mp3", "http://[::ffff:127.0.0.2]:{port}/a"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_passes_the_same_gate(target: str, status: int, public: Site, private: Site) -> None:
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
async def test_a_redirect_to_another_scheme_or_with_a_password_is_refused(location: str, public: Site) -> None:
    public.answers["/hop"] = [redirect(location)]
    with pytest.raises(FetchRefused) as caught:
        await contents(
            f"http://music.example:{public.port}/hop",
            Resolver(music_example=[PUBLIC]),
            file_roots=("/etc",),
            allowed_buckets=("memory://music",),
        )
    assert "pw" not in str(caught.value)


async def test_an_allowed_host_may_be_private_and_no_other_becomes_so(public: Site) -> None:
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


async def test_a_host_that_is_allowed_with_a_port_may_be_private_at_this_port_alone(public: Site) -> None:
    sites = Site(PRIVATE), Site(PRIVATE)
    for site in sites:
        await site.start()
        site.answers["/a.mp3"] = [audio]
    listed, other = (site.port for site in sites)
    try:
        resolver = Resolver(store_internal=[PRIVATE])
        for allowed in (f"Store.internal:{listed}", f"{PRIVATE}:{listed},store.internal:{listed}"):
            uri = "http://store.internal:{}/a.mp3"
            assert await contents(uri.format(listed), resolver, allowed_hosts=tuple(allowed.split(","))) == AUDIO
            with pytest.raises(FetchRefused, match="not public"):
                await contents(uri.format(other), resolver, allowed_hosts=tuple(allowed.split(",")))
        assert [len(site.requests) for site in sites] == [2, 0]
    finally:
        for site in sites:
            await site.runner.cleanup()


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        *(("Store.internal", "store.internal", None), ("store:9000", "store", 9000), ("[::1]", "::1", None)),
        *(("::1", "::1", None), ("0:0::1", "::1", None), ("[::1]:80", "::1", 80), ("10.0.0.1:443", "10.0.0.1", 443)),
        *(("bücher.example:80", "xn--bcher-kva.example", 80), ("xn--bcher-kva.example", "xn--bcher-kva.example", None)),
    ],
)
def test_an_allowed_host_is_read_as_the_host_of_a_url(entry: str, host: str, port: int | None) -> None:
    assert allowed_host(entry) == (host, port)
    assert load_settings(allowed_hosts=entry).fetch.allowed_hosts == (entry,)


@pytest.mark.parametrize(
    "uri",
    [
        *("http://user:secret@music.example/a", "http://secret@music.example/a", "http://:secret@music.example/a"),
        *("http://user:sec?ret@music.example/a", "http:user:secret@music.example", "http:///a", "https://"),
        *("http://music.example:99999/a", "http://[::1", "http:\\\\music.example\\a", "http://a b/"),
        *(f"http://{'a' * 64}.example/", "http://a..b/", "http://.a/", "http://a\r\nHost: b/", "http://a%0d%0a/"),
        *(
            "http://music.example/a\r\nHost: b",
            "http://music.example/a\tb",
            "http://music.example/?\0",
            "http://a/\x7f",
            "http://xn--/",
        ),
        *("", "nothing", "ftp://music.example/a", "gopher://music.example/", "data:audio/mpeg;base64,secret"),
        *("javascript:secret", "://", "zip://a.mp3::http://music.example/a.zip", "simplecache::http://music.example/a"),
        *("http+unix://%2Fsecret", "local:///etc/hostname", "sftp://user:secret@host/a", "http://\ud800/"),
        *("https://user:secret%40music.example/a", "http://user:sec/ret@music.example/a", "http:///user:secret@x/"),
    ],
)
async def test_what_is_no_plain_address_is_refused_without_a_word_of_its_secrets(uri: str) -> None:
    with pytest.raises(FetchRefused) as caught:
        await contents(uri, NumericResolver(), as_shipped=True)
    assert "sec" not in str(caught.value).removeprefix("http+unix://%2Fsecret")


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
            await contents(
                uri, NumericResolver(), as_shipped=True, fetch_attempts=1, allowed_buckets=("memory://music",)
            )
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
                    uri,
                    NumericResolver(music_example=[PUBLIC]),
                    as_shipped=True,
                    fetch_attempts=1,
                    allowed_hosts=("music.example",),
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
