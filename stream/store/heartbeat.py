"""A heartbeat in Redis: it shows whether Redis lost writes that it had acknowledged."""

from __future__ import annotations

import time
from typing import Any, NamedTuple
from uuid import uuid4

from models.contract import KEY_PREFIX, health_key
from stream.store.live import LiveRelease

_TTL_S = 86_400


class LostWrites(NamedTuple):
    """Redis has lost acknowledged writes.

    since_ms (UTC) is when the loss begins; it may begin earlier where Redis lost all heartbeats of this worker, since
    it then is the first of them.
    """

    since_ms: int


class Heartbeat:
    """Writes a time under a key of its own, and compares what Redis then held with what it had acknowledged.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        live: the pointer to the live release; that it is gone is a loss as well.
        key_prefix: of all keys.
    """

    def __init__(self, client: Any, live: LiveRelease, *, key_prefix: str = KEY_PREFIX) -> None:
        self._client = client
        self._live = live
        self._key = health_key(uuid4().hex, prefix=key_prefix)
        self._first_ms: int | None = None
        self._last_ms = 0

    async def beat(self) -> LostWrites | None:
        """Write a heartbeat, and put the pointer to the live release back where it is gone.

        Raises:
            What stream.store.away.is_redis_away knows: Redis does not answer, or takes no writes.
        """
        _, pointer_was_there = await self._live.ensure()
        now_ms = time.time_ns() // 1_000_000
        held: bytes | None = await self._client.set(self._key, now_ms, ex=_TTL_S, get=True)
        first_ms, last_ms, self._last_ms = self._first_ms, self._last_ms, now_ms
        if first_ms is None:
            self._first_ms = now_ms
            return None
        if not held or not pointer_was_there:  # also this worker's last heartbeats may be gone
            return LostWrites(first_ms)
        if int(held) < last_ms:
            return LostWrites(int(held))
        return None
