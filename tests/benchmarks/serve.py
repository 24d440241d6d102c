"""The HTTP API on one core: reads a second, and how long they take at 70 % of that; beside a server that only sends."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import redis
from load import send_at
from streams import streams
from tracks_path import TASTEWAVE, Figures

from deploy.local import Kafka, Redis
from deploy.local.process import bound, free_port
from models.contract import LIVE_KEY, track_fields, track_key
from models.events import TrackTagged

TRACKS, DIM, BATCH = 20_000, 40, 100
RELEASE = "0123456789ab"
SINGLE, MANY = 12_000, 600  # requests
CONNECTIONS = 16
SHARE = 0.7  # of the peak, at which latencies are measured
BARE = """
import sys, uvicorn
body = b"x" * 1_136  # as of a single read
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
            for name, made in kinds.items():
                figures[name] = _measured(name, port, process, made, requests=SINGLE if name == "single read" else MANY)
            figures["event streams"] = streams(port, process, brokers=kafka.brokers, release=RELEASE)
        port = free_port()
        command = [sys.executable, "-c", BARE, str(port)]
        with _pinned(command, cores[0], environment, folder, port=port) as (_, process):
            name = "a server that only sends"
            figures[name] = _measured(name, port, process, kinds["single read"], requests=SINGLE)
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
                send_at(port, [b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"], connections=1)
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
    return b"GET /v1/tracks/track-%06d HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n" % track


def _batch(tracks: list[int], accept: bytes) -> bytes:
    body = json.dumps({"ids": [f"track-{track:06d}" for track in tracks]}).encode()
    head = b"POST /v1/tracks/batch HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (accept, len(body)) + body


def _measured(
    name: str, port: int, process: psutil.Process, made: Callable[[], bytes], *, requests: int
) -> dict[str, float]:
    """As many a second as go, then 70 % of that. The CPU time is the server's, of both, and this client's."""
    asked = [made() for _ in range(requests)]
    send_at(port, asked[: requests // 8], connections=CONNECTIONS)  # warm
    began, at_peak = time.perf_counter(), _cpu_s(process)
    send_at(port, asked, connections=CONNECTIONS)
    peak, cpu_us = requests / (time.perf_counter() - began), 1e6 * (_cpu_s(process) - at_peak) / requests
    at_rate, own = _cpu_s(process), time.process_time()
    latencies_ms = 1000 * np.array(send_at(port, asked, connections=CONNECTIONS, rate=SHARE * peak))
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
    figures = {
        "per_s": peak,
        "cpu_us": cpu_us,
        "p50_ms": float(p50_ms),
        "p99_ms": float(p99_ms),
        "cpu_us_at_rate": 1e6 * (_cpu_s(process) - at_rate) / requests,
        "client_cpu_us_at_rate": 1e6 * (time.process_time() - own) / requests,
    }
    print(
        f"{name:<28} {peak:7.0f}/s   {cpu_us:6.0f} us of CPU: {1e6 / cpu_us:6.0f}/s of a core   at 70 %: "
        f"p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, {figures['cpu_us_at_rate']:.0f} us of CPU "
        f"(client {figures['client_cpu_us_at_rate']:.0f})"
    )
    return figures


def _cpu_s(process: psutil.Process) -> float:
    """CPU time that a process has taken, s."""
    return sum(process.cpu_times()[:2])


PARTS = {"serve": serve}
