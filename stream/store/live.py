"""The pointer to the live release (tw:live), which tells readers whose answers to use."""

from __future__ import annotations

import time
from typing import Any

from models.contract import CONTRACT, KEY_PREFIX, live_key
from stream.store.scripts import script

_KEYS_AT_ONCE = 10_000


class LiveRelease:
    """The pointer, as a worker of one release keeps it.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id of the worker.
        key_prefix: of all keys.
    """

    def __init__(self, client: Any, release: str, *, key_prefix: str = KEY_PREFIX) -> None:
        self._client = client
        self._key = live_key(prefix=key_prefix)
        self._release = release
        self._set_live = script(client, "set_live")
        self._last_seen = release

    async def ensure(self) -> tuple[str, bool]:
        """Put the pointer back where it is gone: to the release that was live when this worker last looked.

        Returns:
            The live release, and whether the pointer was there. Before the first look, a missing pointer is set to the
            worker's own release.
        """
        live: bytes | None = await self._client.hget(self._key, "release")
        if live:
            self._last_seen = live.decode()
            return self._last_seen, True
        arguments = set_live_arguments(self._last_seen, only_if_none=True)
        set_to: bytes = await self._set_live(keys=[self._key], args=arguments)
        self._last_seen = set_to.decode()
        return self._last_seen, False


def activate(client: Any, release: str, *, key_prefix: str = KEY_PREFIX) -> str | None:
    """Make a release live. Returns the one that was live before it, if any.

    client: a redis.Redis or RedisCluster that returns bytes.
    """
    key = live_key(prefix=key_prefix)
    script(client, "set_live")(keys=[key], args=set_live_arguments(release))
    return (client.hget(key, "previous") or b"").decode() or None


def has_answers(client: Any, release: str, *, key_prefix: str = KEY_PREFIX) -> bool:
    """Whether Redis holds any answer of a release. Where it holds none, this looks at all keys.

    client: a redis.Redis or RedisCluster that returns bytes.
    """
    answers = client.scan_iter(match=f"{key_prefix}:{release}:track:*", count=_KEYS_AT_ONCE)
    return next(iter(answers), None) is not None


def set_live_arguments(release: str, *, only_if_none: bool = False) -> list[str | int]:
    """Arguments of set_live.lua."""
    return [CONTRACT, release, time.time_ns() // 1_000_000, int(only_if_none)]
