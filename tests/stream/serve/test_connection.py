"""Slow clients: a connection does not wait for them without end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from stream.serve.connection import connection_of
from tests.platform.clock import until

TIMEOUT_S = 0.3
LARGE = 50_000_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads what comes, and answers with many bytes at /large."""
    while (await receive()).get("more_body"):
        pass
    body = b"x" * (LARGE if scope["path"] == "/large" else 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def server() -> AsyncIterator[uvicorn.Server]:
    config = uvicorn.Config(
        app, port=0, http=connection_of(TIMEOUT_S), ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server
    await server.shutdown()


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return server.servers[0].sockets[0].getsockname()[1]


async def sent(port: int, *pieces: bytes, every_s: float = 0.0) -> bytes:
    """What comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    coming = asyncio.ensure_future(reader.read())
    for piece in pieces:
        writer.write(piece)
        await asyncio.wait([coming], timeout=every_s)
    try:
        return await asyncio.wait_for(coming, 10)
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_request_that_arrives_in_pieces_is_answered(port):
    halves = CLOSE[:20], CLOSE[20:]
    assert (await sent(port, *halves, every_s=0.05)).startswith(b"HTTP/1.1 200")
    body = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
    assert (await sent(port, body, b"ab", b"cd", every_s=0.05)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "begin",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"],
)
async def test_a_request_that_does_not_arrive_is_answered_408_in_time(port, begin):
    started = asyncio.get_running_loop().time()
    assert (await sent(port, begin)).startswith(b"HTTP/1.1 408")
    assert TIMEOUT_S <= asyncio.get_running_loop().time() - started < 10 * TIMEOUT_S


async def test_a_client_that_sends_a_byte_now_and_then_gains_no_time(port):
    dripping = [bytes([byte]) for byte in b"GET / HTTP/1.1\r\nA: " + b"b" * 20]
    assert (await sent(port, *dripping, every_s=0.05)).startswith(b"HTTP/1.1 408")


UPLOAD = b"POST /v1/uploads?name=a.wav HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 30000\r\n\r\n"


async def test_an_upload_may_take_longer_as_long_as_it_comes(port):
    assert (await sent(port, UPLOAD, *[b"x" * 1000] * 30, every_s=0.03)).startswith(b"HTTP/1.1 200")


async def test_an_upload_that_hangs_or_drips_is_answered_408(port):
    assert (await sent(port, UPLOAD, b"x" * 20000)).startswith(b"HTTP/1.1 408")
    assert (await sent(port, UPLOAD, *[b"x" * 10] * 40, every_s=0.03)).startswith(b"HTTP/1.1 408")


async def test_headers_without_end_are_refused(port):
    answer = await sent(port, b"GET / HTTP/1.1\r\n", *[b"A: " + b"b" * 1000 + b"\r\n"] * 40)
    assert answer == b"reset" or answer.startswith(b"HTTP/1.1 431")


async def test_a_connection_that_is_kept_alive_may_rest_longer_than_a_request_may_take(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(CLOSE.replace(b"Connection: close\r\n", b""))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readexactly(2)
        await asyncio.sleep(2 * TIMEOUT_S)
    writer.close()


async def test_a_client_that_does_not_take_its_answer_loses_the_connection(server, port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(CLOSE.replace(b"/ ", b"/large "))
    connections = server.server_state.connections
    await asyncio.to_thread(until, lambda: connections)
    await asyncio.to_thread(until, lambda: not connections)
    received = 0
    try:
        while piece := await asyncio.wait_for(reader.read(65536), 10):
            received += len(piece)
    except ConnectionResetError:
        pass
    assert received < LARGE
    writer.close()
