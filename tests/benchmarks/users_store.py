"""Users in Redis: CPU time of the client and the server for a listen and a user, and bytes for a user."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.contract import history_key
from models.events import Listen, UserEmbedded
from models.history import feedback_member, history_member
from stream.store.client import async_client
from stream.store.histories import Change, HistoryStore
from stream.store.users import UserStore

USERS, TRACKS, DIM = 20_000, 5_000, 40
BATCH, BATCHES = 2_000, 30
SAID = 20  # likes, dislikes and exclusions of a user
START_MS = 1_767_225_600_000
RELEASE = "0123456789ab"


class Crowd:
    """Users who listen, a few of them much more than the others."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        weights = 1.0 / np.arange(1, USERS + 1) ** 0.8
        self._shares = weights / weights.sum()
        letters = self._rng.integers(ord("a"), ord("z") + 1, (TRACKS, 22), np.uint8)
        self._tracks = [row.tobytes().decode() for row in letters]
        self._clock = START_MS

    def full(self, user: int, *, history: int) -> Change:
        """A change that fills the history of a user, and gives it SAID likes."""
        listens = [self._listen(user, "play") for _ in range(history)]
        likes = [self._listen(user, "like") for _ in range(SAID)]
        return Change({history_member(one): one.at for one in listens}, {feedback_member(one): one.at for one in likes})

    def batch(self) -> dict[str, Change]:
        """What BATCH plays say of their users."""
        changes: dict[str, tuple[dict[bytes, int], dict[bytes, int]]] = {}
        for user in self._rng.choice(USERS, BATCH, p=self._shares).tolist():
            one = self._listen(user, "play")
            changes.setdefault(one.user_id, ({}, {}))[0][history_member(one)] = one.at
        return {user_id: Change(*change) for user_id, change in changes.items()}

    def embedded(self, user_id: str, revision: int) -> UserEmbedded:
        """Where a user stands: somewhere."""
        embedding = tuple(self._rng.standard_normal(DIM, np.float32).tolist())
        return UserEmbedded(
            user_id=user_id, release=RELEASE, embedding=embedding, source="history", listens=64, event_time=self._clock,
            revision=revision, refreshed_at=self._clock,
        )  # fmt: skip

    def _listen(self, user: int, kind: Any) -> Listen:
        self._clock += 1
        return Listen(
            event_id="e", user_id=f"user-{user:08d}", track_id=self._tracks[self._clock * 7919 % TRACKS], kind=kind,
            at=self._clock, played_ms=200_000, duration_ms=210_000,
        )  # fmt: skip


class Meter:
    """CPU time of this process and of Redis, us."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.spent: dict[str, tuple[float, float]] = {}

    async def measure(self, name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        there, here = await self._of_redis(), time.process_time()
        result = await act()
        here, there = time.process_time() - here, await self._of_redis() - there
        before = self.spent.get(name, (0.0, 0.0))
        self.spent[name] = (before[0] + 1e6 * here, before[1] + 1e6 * there)
        return result

    async def _of_redis(self) -> float:
        used = await self._client.info("cpu")
        return used["used_cpu_user"] + used["used_cpu_sys"]


def users(_: Path) -> dict[str, Any]:
    """What a listen and a refreshed user cost, and bytes of a user by the length of its history."""
    from deploy.local import Redis

    figures: dict[str, Any] = {}
    for history in (64, 53, 39, 33):  # each as long as fits one of the sizes in which Redis's allocator gives memory
        with Redis() as server:
            figures[str(history)] = asyncio.run(_measured(server.url, history, timed=history == 64))
    for history, of_length in figures.items():
        parts = ", ".join(f"{name} {size:.0f}" for name, size in of_length["bytes"].items())
        print(
            f"bytes a user, history of {history:<3}    {of_length['bytes_in_all']:8.0f}    ({parts}; mark: 4000 at 64)"
        )
    timed = figures["64"]["us"]
    for name, (client, redis, of) in timed.items():
        print(f"{name:<31} {client:8.1f} us of client CPU, {redis:.1f} us of Redis CPU {of}")
    return figures


async def _measured(url: str, history: int, *, timed: bool) -> dict[str, Any]:
    from stream.settings import load_settings

    settings = load_settings(redis_url=url, user_history=history)
    client = async_client(settings.redis)
    histories = HistoryStore(client, settings.users)
    store = UserStore(client, RELEASE, ttl=86_400)
    crowd = Crowd()
    await histories.add({"user-00000000": crowd.full(0, history=history)})  # so that scripts and buffers are there
    await client.flushall()
    empty = await _used(client)
    for first in range(0, USERS, 500):
        changes = {f"user-{user:08d}": crowd.full(user, history=history) for user in range(first, first + 500)}
        states = await histories.add(changes)
        await store.put([crowd.embedded(user_id, state.revision) for user_id, state in states.items()])
    result: dict[str, Any] = {
        "bytes_in_all": (await _used(client) - empty) / USERS,
        "bytes": {
            name: await client.memory_usage(key, samples=0)
            for name, key in {
                "history": "tw:history:{user-00000001}",
                "feedback": "tw:feedback:{user-00000001}",
                "embedding": f"tw:{RELEASE}:user:{{user-00000001}}",
            }.items()
        },
    }
    if timed:
        result["us"] = await _costs(client, histories, store, crowd)
    await client.aclose()
    return result


async def _costs(
    client: Any, histories: HistoryStore, store: UserStore, crowd: Crowd
) -> Mapping[str, tuple[float, float, str]]:
    """For each step client and Redis CPU, us, and of what."""
    meter, refreshed = Meter(client), 0
    for _ in range(BATCHES):
        changes = crowd.batch()
        states = await meter.measure("add and read", lambda changes=changes: histories.add(changes))
        await meter.measure("read", lambda changes=changes: histories.read(list(changes)))
        await meter.measure("peer: pipeline of ZRANGE", lambda changes=changes: _pipelined(client, list(changes)))
        embedded = [crowd.embedded(user_id, state.revision) for user_id, state in states.items()]
        await meter.measure("put", lambda embedded=embedded: store.put(embedded))
        await meter.measure("revisions", lambda changes=changes: store.revisions(list(changes)))
        refreshed += len(changes)
    costs = {name: (here / refreshed, there / refreshed, "a user") for name, (here, there) in meter.spent.items()}
    whole = [sum(meter.spent[name][side] for name in ("add and read", "put", "revisions")) for side in (0, 1)]
    listens = BATCH * BATCHES
    return costs | {
        "all but read": (whole[0] / listens, whole[1] / listens, f"a listen ({listens / refreshed:.2f} a user)")
    }


async def _pipelined(client: Any, user_ids: list[str]) -> list[Any]:
    """The histories alone, as redis-py reads many keys."""
    pipeline = client.pipeline(transaction=False)
    for user_id in user_ids:
        pipeline.zrange(history_key(user_id), 1, -1)
    return await pipeline.execute()


async def _used(client: Any) -> int:
    return (await client.info("memory"))["used_memory"]


PARTS = {"users": users}
