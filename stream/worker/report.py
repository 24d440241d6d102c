"""What a worker says of itself in Redis, each time it checks its servers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from uuid import uuid4

import redis.exceptions

from stream import metrics
from stream.store.workers import WorkerReport, Workers
from stream.worker.health import Health

_LEAVE_TIMEOUT_S = 2.0
_DEAD = ("failed", "refused")  # the outcomes of events that became dead letters


class Reporter:
    """Writes the report of this process.

    Args:
        workers: where it is written.
        health: what it says.
        processes: how many processes hear tracks.
    """

    def __init__(self, workers: Workers, health: Health, *, processes: int) -> None:
        self._workers = workers
        self._health = health
        self._processes = processes
        self._name = uuid4().hex
        self._started_at = _now_ms()

    async def tell(self) -> None:
        """Write how the worker is. Raises what stream.store.away.is_redis_away knows."""
        said = self._health.report()
        done, dead_letters = _counted()
        report = WorkerReport(
            worker=self._name,
            role=said["role"],
            release=said["release"],
            started_at=self._started_at,
            at=_now_ms(),
            problems=said["problems"],
            lag=sum(partition["lag"] for partition in said["partitions"].values()),
            in_hand=int(_value("tastewave_in_hand_records")),
            processes=self._processes,
            restarts=int(_value("tastewave_pool_restarts_total")),
            done=done,
            dead_letters=dead_letters,
        )
        await self._workers.write(report)

    async def leave(self) -> None:
        """Take the report back, if Redis lets us: it would look as if the worker had died."""
        with contextlib.suppress(OSError, redis.exceptions.RedisError, redis.exceptions.RedisClusterException):
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await self._workers.leave(self._name)


def _counted() -> tuple[dict[str, int], dict[str, int]]:
    """The events that this process has done, by outcome, and its dead letters, by reason."""
    done, dead_letters = Counter[str](), Counter[str]()
    for metric in metrics.EVENTS.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                outcome, reason = sample.labels["outcome"], sample.labels["reason"]
                done[outcome] += int(sample.value)
                if outcome in _DEAD:
                    dead_letters[reason] += int(sample.value)
    return dict(done), dict(dead_letters)


def _value(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(name) or 0.0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
