"""Audio on its way in."""

import asyncio
import contextlib
import io
import tempfile
from pathlib import Path

import pytest
from aiohttp import web

from models.errors import FetchFailed, TooLarge
from stream.audio.intake import Intake, TransientError
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


def test_a_disk_that_is_full_is_trouble_that_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(TransientError, match="cannot be kept on the worker's disk \\(No space left on device\\)"):
        Intake("http://host/a", max_bytes=6)


async def test_a_download_that_the_disk_cannot_hold_fails_and_is_no_fault_of_its_address(
    public: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(FetchFailed, match="No space left on device"):
        await contents(f"http://{PUBLIC}:{public.port}/a.mp3")
    assert len(public.requests) == 4
