"""What workers say of themselves in Redis, for `tastewave serve` to show: one hash, a field for each worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from models.contract import KEY_PREFIX, workers_key

FORGOTTEN_AFTER_MS = 3_600_000
"""A worker that has said nothing for so long is taken out."""

_TTL_S = 86_400


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it was a moment ago.

    Attributes:
        worker: its name for this run, which no other has.
        role: tracks or listens.
        release: that it is pinned to.
        started_at, at: when it started, and when it said this, ms.
        problems: what keeps it from being ready, a sentence each; empty where it is ready.
        lag: records of its partitions that it has not answered.
        in_hand: records, or batches of listens, that are being handled.
        processes: that hear tracks.
        restarts: processes that were lost and replaced.
        done: events that it has done since it started, by outcome, as tastewave_events_total has them.
        dead_letters: how many of them became dead letters, by reason.
    """

    worker: str
    role: str
    release: str
    started_at: int
    at: int
    problems: dict[str, str]
    lag: int
    in_hand: int
    processes: int
    restarts: int
    done: dict[str, int]
    dead_letters: dict[str, int]


_decode = msgspec.json.Decoder(WorkerReport).decode
_encode = msgspec.json.Encoder().encode


class Workers:
    """The hash, as a worker keeps its field in it.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        key_prefix: of all keys.
    """

    def __init__(self, client: Any, *, key_prefix: str = KEY_PREFIX) -> None:
        self._client = client
        self._key = workers_key(prefix=key_prefix)
        self._is_first = True

    async def write(self, report: WorkerReport) -> None:
        """Say how the worker is; at first also take out those that have long been silent."""
        if self._is_first:
            held = await self._client.hgetall(self._key)
            alive = {one.worker for one in reports(held) if report.at - one.at < FORGOTTEN_AFTER_MS}
            if gone := [name for name in held if name.decode(errors="replace") not in alive]:
                await self._client.hdel(self._key, *gone)
            self._is_first = False
        await self._client.hset(self._key, report.worker, _encode(report))
        await self._client.expire(self._key, _TTL_S)

    async def leave(self, worker: str) -> None:
        """Take a worker out that stops."""
        await self._client.hdel(self._key, worker)


def reports(held: Mapping[bytes, bytes]) -> list[WorkerReport]:
    """The reports in the hash, by the time when their workers started; those of other versions are left out."""
    found: list[WorkerReport] = []
    for text in held.values():
        try:
            found.append(_decode(text))
        except msgspec.MsgspecError:
            continue
    return sorted(found, key=lambda one: (one.role, one.started_at, one.worker))
