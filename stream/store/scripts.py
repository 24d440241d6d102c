"""The Lua scripts beside this file, registered with a client: each is one atomic write (or read) in one slot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def script(client: Any, name: str) -> Any:
    """A script beside this file, ready to call with keys=[...] and args=[...]; awaitable of an asynchronous client.

    client: a redis.Redis or RedisCluster, synchronous or not. name: of the file, without .lua.
    """
    return client.register_script(Path(__file__).with_name(f"{name}.lua").read_text())


def pairs(flat: list[bytes]) -> Mapping[bytes, bytes]:
    """The fields of a hash, as a script returns them (name, value, name, value, ...)."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
