"""Audio on its way in."""

import asyncio
import contextlib
import errno
import io
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from models.errors import TooLarge
from stream.audio import gates
from stream.audio.intake import Intake
from stream.audio.machine import MachineUnusable, lacking, try_disk
from tests.stream.audio.sites import AUDIO, PUBLIC, Resolver, Site, checked, contents, fetcher, open_files


async def test_a_download_lies_in_an_unlinked_file_with_its_size_and_hash(
    public: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with fetcher(Resolver(music_example=[PUBLIC])) as fetch:
        with await fetch.fetch(f"http://music.example:{public.port}/a.mp3") as fetched:
            assert checked(fetched) == AUDIO
            assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - an empty folder
            assert [path for path in open_files() if path.startswith(str(tmp_path))] != []
        fetched.close()
        assert fetched.file.closed


async def test_a_size_announced_as_too_large_is_refused_without_its_body(public: Site) -> None:
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


async def test_an_endless_body_ends_at_the_limit(public: Site) -> None:
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


def test_blocks_become_one_file_with_its_size_and_hash_that_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Intake("http://host/a", max_bytes=6) as intake:
        for block in (b"abc", b"", bytearray(b"def")):
            intake.add(block)
        with intake.finish() as fetched:
            assert checked(fetched) == b"abcdef"
            assert list(tmp_path.iterdir()) == []


def test_an_original_is_counted_and_hashed_and_not_copied() -> None:
    original = io.BytesIO(b"abcdef")
    with Intake("file:///a", max_bytes=6, original=original) as intake:
        intake.add(original.read())
        fetched = intake.finish()
    assert fetched.file is original
    assert checked(fetched) == b"abcdef"


def test_the_first_byte_too_many_is_refused_and_closes_the_file() -> None:
    original = io.BytesIO()

    def take_in(*blocks: bytes) -> None:
        with Intake("http://host/a", max_bytes=6, original=original) as intake:
            intake.expect(None)
            intake.expect(6)
            for block in blocks:
                intake.add(block)

    take_in(b"abc", b"def")
    assert not original.closed
    with pytest.raises(TooLarge, match=r"http://host/a has 7 bytes or more, and 6 are allowed"):
        take_in(b"abcdef", b"g")
    assert original.closed


FULL = Path("/dev/full")  # every write to it fails with ENOSPC


def on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: FULL.open("w+b", **options))


@contextlib.contextmanager
def without_descriptors() -> Iterator[None]:
    """No file can be opened inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)  # the next descriptor that is free
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:  # those below it that were free
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


def test_a_disk_that_is_full_is_the_machines_trouble_and_the_file_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_full_disk(monkeypatch)

    def take_in(block: bytes) -> None:
        with Intake("http://host/a", max_bytes=1 << 20) as intake:
            intake.add(block)
            intake.finish()

    for block in (b"a few bytes, which stay in the buffer", bytes(1 << 20)):
        with pytest.raises(MachineUnusable, match=r"No space left on device\); free space"):
            take_in(block)
    assert FULL not in [link.resolve() for link in Path("/proc/self/fd").iterdir()]


def test_a_folder_for_temporary_files_that_is_gone_is_the_machines_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(MachineUnusable, match="TMPDIR"):
        Intake("http://host/a", max_bytes=6)


def test_the_check_notices_what_a_download_would_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    try_disk()
    with without_descriptors(), pytest.raises(MachineUnusable, match="ulimit -n"):
        try_disk()
    on_a_full_disk(monkeypatch)
    with pytest.raises(MachineUnusable, match="free space"):
        try_disk()


async def test_a_download_that_the_disk_cannot_hold_is_the_machines_trouble_at_the_first_try(
    public: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_full_disk(monkeypatch)
    with pytest.raises(MachineUnusable, match="No space left on device"):
        await contents(f"http://{PUBLIC}:{public.port}/a.mp3")
    assert len(public.requests) == 1


async def test_a_worker_without_descriptors_blames_neither_web_server_nor_file(public: Site, tmp_path: Path) -> None:
    file = tmp_path / "a.mp3"
    file.write_bytes(AUDIO)
    async with fetcher(Resolver(music_example=[PUBLIC]), file_roots=(str(tmp_path),)) as fetch:
        for uri in (f"http://music.example:{public.port}/a.mp3", file.as_uri()):
            (await fetch.fetch(uri)).close()  # threads and connections that it keeps are there
            await fetch._public_web.close()
            fetch._public_web = fetch._web(gates.public_sockets(lambda _: True))
            with without_descriptors(), pytest.raises(MachineUnusable, match="ulimit -n"):
                await fetch.fetch(uri)
            (await fetch.fetch(uri)).close()


def test_an_error_is_the_machines_by_what_it_came_from() -> None:
    def chained() -> None:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError:
            raise KeyError("a library's own error") from None

    with pytest.raises(KeyError) as raised:
        chained()
    assert "ulimit -n" in str(lacking(raised.value))
    assert "threads" in str(lacking(RuntimeError("can't start new thread")))
    for other in (ConnectionError(errno.ECONNREFUSED, "refused"), PermissionError(errno.EACCES, "no"), KeyError("x")):
        assert lacking(other) is None
