import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator

import fsspec
import pytest

from tests.stream.audio.sites import AUDIO, PRIVATE, PUBLIC, Site, audio


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
def bucket() -> str:
    memory = fsspec.filesystem("memory")
    memory.pipe("/music/a b%20.mp3", AUDIO)
    memory.pipe("/other/a.mp3", AUDIO)
    return "memory://music"
