"""The pointer to the live release (tw:live), which tells readers whose answers to use."""

from __future__ import annotations

import time
from typing import Any

from models.contract import CONTRACT, LIVE_KEY
from stream.store.scripts import script


class LiveRelease:
    """The pointer, as a worker of one release keeps it.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id of the worker.
    """

    def __init__(self, client: Any, release: str) -> None:
        self._client = client
        self._release = release
        self._set_live = script(client, "set_live")
        self._last_seen = release

    async def ensure(self) -> tuple[str, bool]:
        """Put the pointer back where it is gone: to the release that was live when this worker last looked.

        Returns:
            The live release, and whether the pointer was there. Before the first look, a missing pointer is set to the
            worker's own release.
        """
        live: bytes | None = await self._client.hget(LIVE_KEY, "release")
        if live:
            self._last_seen = live.decode()
            return self._last_seen, True
        arguments = set_live_arguments(self._last_seen, only_if_none=True)
        set_to: bytes = await self._set_live(keys=[LIVE_KEY], args=arguments)
        self._last_seen = set_to.decode()
        return self._last_seen, False


def activate(client: Any, release: str) -> str | None:
    """Make a release live. Returns the one that was live before it, if any.

    client: a redis.Redis or RedisCluster that returns bytes.
    """
    script(client, "set_live")(keys=[LIVE_KEY], args=set_live_arguments(release))
    return (client.hget(LIVE_KEY, "previous") or b"").decode() or None


def set_live_arguments(release: str, *, only_if_none: bool = False) -> list[str | int]:
    """Arguments of set_live.lua."""
    return [CONTRACT, release, time.time_ns() // 1_000_000, int(only_if_none)]
