"""The Lua scripts beside this file, registered with a client: each is one atomic write (or read) in one slot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_REHEARSAL = """
local function work(KEYS, ARGV)
%s
end
local half = #ARGV / 2
work(KEYS, {unpack(ARGV, 1, half)})
work(KEYS, {unpack(ARGV, half + 1)})
redis.call('DEL', unpack(KEYS))
"""


def script(client: Any, name: str) -> Any:
    """A script beside this file, ready to call with keys=[...] and args=[...]; awaitable of an asynchronous client.

    client: a redis.Redis or RedisCluster, synchronous or not. name: of the file, without .lua.
    """
    return client.register_script(_text(name))


def rehearsal(client: Any, name: str) -> Any:
    """A script that does what the other one does twice, and then deletes its keys: it shows what Redis would refuse.

    Nobody else sees the keys, since a script runs as a whole. The first half of `args` goes to the first run, the
    second half to the second.
    """
    return client.register_script(_REHEARSAL % _text(name))


def _text(name: str) -> str:
    return Path(__file__).with_name(f"{name}.lua").read_text()
