"""tastewave-reader: 100 users at once, beside the barest pipeline of redis-py and beside Feast's online store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis
from environments import python_of

from deploy.local import Redis
from models.contract import live_key, user_key

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy/clients/python"))

USERS, AT_ONCE, READS, DIM = 20_000, 100, 3_000, 40
RELEASE = "0123456789ab"
FIELDS = (b"embedding", b"refreshed_at", b"source")


def reader(folder: Path) -> dict[str, Any]:
    """Milliseconds of a read of 100 users on loopback."""
    from tastewave_reader import Reader

    with Redis() as server:
        client = redis.Redis.from_url(server.url)
        ids = _fill(client)
        draws = np.random.default_rng(1).integers(0, USERS, (READS, AT_ONCE))
        ours = Reader(client)

        def bare(names: list[str]) -> Any:
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.execute_command("HMGET", user_key(RELEASE, name), *FIELDS)
            return pipeline.execute()

        took = _side_by_side({"reader": ours.users, "bare": bare}, [[ids[one] for one in row] for row in draws])
        address = server.url.removeprefix("redis://").partition("/")[0]
        done = subprocess.run(
            [python_of("feast"), Path(__file__).with_name("feast_users.py"), address, str(USERS), str(AT_ONCE), "300",
             folder], check=True, capture_output=True, text=True,
        )  # fmt: skip
        took["feast"] = np.array(json.loads(done.stdout.splitlines()[-1]))
    figures = {name: _spread(values) for name, values in took.items()}
    for name, label in (("reader", "tastewave-reader"), ("bare", "barest pipeline"), ("feast", "Feast online store")):
        of = figures[name]
        print(f"100 users, {label:<20} {of['median_ms']:8.2f} ms   p99 {of['p99_ms']:.2f} ms")
    ratio = figures["reader"]["p99_ms"] / figures["bare"]["p99_ms"]
    peer = figures["feast"]["median_ms"] / figures["reader"]["median_ms"]
    print(f"  p99 of the barest pipeline    {ratio:8.2f} x    (mark: at most 1.3; p99 under 3 ms)")
    print(f"  faster than Feast (median)    {peer:8.1f} x")
    return figures | {"p99_against_bare": ratio, "feast_ratio": peer}


def _fill(client: Any) -> list[str]:
    """Users in Redis, as workers write them."""
    vectors = np.random.default_rng(0).standard_normal((USERS, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    client.hset(live_key(), mapping={"contract": "1", "release": RELEASE})
    ids = [f"user-{number}" for number in range(USERS)]
    pipeline = client.pipeline(transaction=False)
    for name, vector in zip(ids, vectors, strict=True):
        pipeline.hset(
            user_key(RELEASE, name),
            mapping={
                "embedding": vector.tobytes(), "source": "history", "listens": 64, "event_time": 1_795_653_950_626,
                "revision": 70, "refreshed_at": time.time_ns() // 1_000_000,
            },
        )  # fmt: skip
    pipeline.execute()
    return ids


def _side_by_side(reads: dict[str, Callable[[list[str]], Any]], asked: list[list[str]]) -> dict[str, np.ndarray]:
    """Milliseconds of each read, in turns, so that what else the machine does meets all alike."""
    took: dict[str, list[float]] = {name: [] for name in reads}
    for number, names in enumerate(asked):
        for name, read in reads.items():
            began = time.perf_counter()
            read(names)
            if number >= 100:  # the first are a warm-up
                took[name].append((time.perf_counter() - began) * 1000)
    return {name: np.array(values) for name, values in took.items()}


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"median_ms": float(np.median(values)), "p99_ms": float(np.quantile(values, 0.99))}


PARTS = {"reader": reader}
