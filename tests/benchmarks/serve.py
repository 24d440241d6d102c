"""The HTTP API on one core: reads a second, and how long they take at 70 % of that; beside a server that only sends."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis
from tracks_path import TASTEWAVE, Figures

from deploy.local import Kafka, Redis
from deploy.local.process import bound, free_port
from models.contract import LIVE_KEY, track_fields, track_key
from models.events import TrackTagged

TRACKS, DIM, BATCH = 20_000, 40, 100
RELEASE = "0123456789ab"
CONNECTIONS = 16
SHARE = 0.7  # of the peak, at which latencies are measured
BARE = """
import sys, uvicorn
body = b"x" * int(sys.argv[2])
head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
async def app(scope, receive, send):
    await send(head)
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", lifespan="off", access_log=False,
            log_level="error")
"""


def serve(folder: Path) -> Figures:
    """Rates on one core, CPU time of a request, and latencies at 70 % of the peak."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:]) or set(cores))  # Redis and this client have the others
    with ExitStack() as stack:
        kafka = stack.enter_context(Kafka())
        server = stack.enter_context(Redis())
        _fill(server.url)
        environment = os.environ | {
            "TASTEWAVE_KAFKA_BROKERS": kafka.brokers,
            "TASTEWAVE_REDIS_URL": server.url,
            "TASTEWAVE_TOPIC_PARTITIONS": "1",
        }
        subprocess.run([TASTEWAVE, "topics", "create"], env=environment, check=True, stdout=subprocess.DEVNULL)
        figures: Figures = {}
        chance = random.Random(0)
        kinds: dict[str, Callable[[], bytes]] = {
            "single read": lambda: _single(chance.randrange(TRACKS)),
            "batch of 100, JSON": lambda: _batch(chance.sample(range(TRACKS), BATCH), b"application/json"),
            "batch of 100, msgpack": lambda: _batch(chance.sample(range(TRACKS), BATCH), b"application/msgpack"),
        }
        with _pinned([str(TASTEWAVE), "serve"], cores[0], environment, folder) as (port, process):
            size = asyncio.run(_length(port, kinds["single read"]()))
            for name, made in kinds.items():
                figures[name] = _measured(name, port, process, made, requests=4_000 if name == "single read" else 400)
        port = free_port()
        command = [sys.executable, "-c", BARE, str(port), str(size)]
        with _pinned(command, cores[0], environment, folder, port=port) as (_, process):
            name = "a server that only sends"
            figures[name] = _measured(name, port, process, kinds["single read"], requests=4_000)
    return figures


def _fill(url: str) -> None:
    rng, ranked = np.random.default_rng(0), tuple((name, 0.2) for name in ("jazz", "blues", "pop", "rock", "folk"))
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
        client.hset(LIVE_KEY, mapping={"contract": 1, "release": RELEASE})
        for number in range(TRACKS):
            answer = TrackTagged(
                track_id=f"track-{number:06d}", release=RELEASE, status="tagged", event_time=1_795_653_950_626,
                event_id="8f14e45f", tagged_at=1_795_653_951_000, genre="jazz", confidence=0.885973, genres=ranked,
                tags=ranked, embedding=tuple(rng.standard_normal(DIM, np.float32).tolist()), title="jazz-0",
            )  # fmt: skip
            pipeline.hset(track_key(RELEASE, answer.track_id), mapping=track_fields(answer))  # type: ignore[arg-type]
        pipeline.execute()


@contextmanager
def _pinned(
    command: list[str], core: int, environment: dict[str, str], folder: Path, *, port: int | None = None
) -> Iterator[tuple[int, psutil.Process]]:
    """A server that runs on one core alone; its port, and its process."""
    port = port or free_port()
    log = (folder / "serve.log").open("wb")
    started = subprocess.Popen(
        bound(["taskset", "-c", str(core), *command]),
        env=environment | {"TASTEWAVE_SERVE_PORT": str(port)},
        stdout=log,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                asyncio.run(_length(port, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"))
                break
            except OSError:
                if started.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "serve.log").read_text()) from None
                time.sleep(0.1)
        yield port, psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(30)
        log.close()


def _single(track: int) -> bytes:
    return b"GET /v1/tracks/track-%06d HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n" % track


def _batch(tracks: list[int], accept: bytes) -> bytes:
    body = json.dumps({"ids": [f"track-{track:06d}" for track in tracks]}).encode()
    head = b"POST /v1/tracks/batch HTTP/1.1\r\nHost: x\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (accept, len(body)) + body


def _measured(
    name: str, port: int, process: psutil.Process, made: Callable[[], bytes], *, requests: int
) -> dict[str, float]:
    asyncio.run(_drive(port, [made() for _ in range(requests // 8)]))  # warm
    cpu_s, started = sum(process.cpu_times()[:2]), time.perf_counter()
    asyncio.run(_drive(port, [made() for _ in range(requests)]))
    took_s, cpu_s = time.perf_counter() - started, sum(process.cpu_times()[:2]) - cpu_s
    peak = requests / took_s
    latencies = np.array(asyncio.run(_drive(port, [made() for _ in range(requests // 2)], rate=SHARE * peak))) * 1000
    p50, p99 = np.percentile(latencies, [50, 99])
    print(
        f"{name:<28} {peak:7.0f}/s   {cpu_s / requests * 1e6:6.0f} us of CPU: {requests / cpu_s:6.0f}/s of a core   "
        f"at 70 %: p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    )
    return {"per_s": peak, "cpu_us": cpu_s / requests * 1e6, "p50_ms": float(p50), "p99_ms": float(p99)}


class _Client(asyncio.Protocol):
    """A connection that sends a request when it is told to, and measures from when it should have been sent."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""
        self._answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length and self._answered:
            if not head.startswith(b"HTTP/1.1 200"):
                self._answered.set_exception(RuntimeError(head.decode()))
            else:
                self._answered.set_result(length)
            self._buffer = b""

    async def ask(self, request: bytes) -> int:
        """The length of the body of the answer."""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        self._transport.close()


async def _length(port: int, request: bytes) -> int:
    _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    try:
        return await client.ask(request)
    finally:
        client.close()


async def _drive(port: int, requests: list[bytes], *, rate: float | None = None) -> list[float]:
    """Send requests over some connections, as fast as they go or at a rate; returns how long each took, s.

    At a rate, a request that waits for the connection to be free has waited since it was due.
    """
    loop = asyncio.get_running_loop()
    took: list[float] = []
    begin = loop.time() + 0.01

    async def one(place: int) -> None:
        _, client = await loop.create_connection(_Client, "127.0.0.1", port)
        for number in range(place, len(requests), CONNECTIONS):
            due = begin + number / rate if rate else loop.time()
            if rate and (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            await client.ask(requests[number])
            took.append(loop.time() - due)
        client.close()

    await asyncio.gather(*(one(place) for place in range(CONNECTIONS)))
    return took


PARTS = {"serve": serve}
