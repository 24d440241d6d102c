"""Web sites and name servers on loopback that stand for the internet, and a Fetcher to try on them."""

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp.abc
from aiohttp import web

from stream.audio.fetch import Fetcher
from stream.audio.gates import is_public
from stream.audio.intake import Fetched
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
        self.answers[host] = [[answer[4][0] for answer in socket.getaddrinfo(host, port, flags=flags)]]
        return await super().resolve(host, port, family)


class Site:
    """A web server on one loopback address; `answers` maps a path to what its requests get, one after the other.

    "*" stands for all other paths.
    """

    def __init__(self, host: str) -> None:
        self.host, self.answers, self.requests = host, {}, []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answers = self.answers.get(request.path) or self.answers.get("*", [reply(404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return await answer(request)

    async def start(self, port: int = 0) -> None:
        self.runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
        self.runner.app.router.add_route("*", "/{path:.*}", self.handle)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.host, port).start()
        self.port = self.runner.addresses[0][1]


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


def fetcher(resolver: Resolver | None = None, *, as_shipped: bool = False, **settings: object) -> Fetcher:
    """A Fetcher that counts PUBLIC as public beside the addresses that are; as shipped, without that exception."""
    return Fetcher(
        load_settings(**settings).fetch,
        resolver=resolver or Resolver(),
        backoff_s=0.001,
        **({} if as_shipped else {"is_public": lambda address: address == PUBLIC or is_public(address)}),
    )


async def contents(uri: str, resolver: Resolver | None = None, **options: object) -> bytes:
    async with fetcher(resolver, **options) as fetch:
        with await fetch.fetch(uri) as fetched:
            return checked(fetched)


def checked(fetched: Fetched) -> bytes:
    read = fetched.file.read()
    assert len(read) == fetched.size_bytes
    assert hashlib.sha256(read).hexdigest() == fetched.content_hash
    return read


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


def open_files() -> list[str]:
    """What regular files this process has open."""
    links = (link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_file())
    return sorted(str(link) for link in links if link.is_absolute())
