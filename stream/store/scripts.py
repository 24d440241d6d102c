"""The Lua scripts beside this file, registered with a client: each is one atomic write (or read) in one slot."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def script(client: Any, name: str) -> Any:
    """A script beside this file, ready to call with keys=[...] and args=[...]; awaitable of an asynchronous client.

    client: a redis.Redis or RedisCluster, synchronous or not. name: of the file, without .lua.
    """
    return client.register_script(Path(__file__).with_name(f"{name}.lua").read_text())
