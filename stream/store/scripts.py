"""The Lua scripts beside this file, registered with a client: each is one atomic write (or read) in one slot."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from stream.store.away import is_foreign, named

USERS_AT_ONCE = 32
"""So many users take Redis about a millisecond."""


class UserCall(NamedTuple):
    """Keys and arguments of one user in a call of a UsersScript."""

    keys: Sequence[str]
    args: Sequence[Any] = ()


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


class UsersScript:
    """A script beside this file that serves many users in one call.

    A single server gets a call for USERS_AT_ONCE users, so that it serves others in between. All keys of a call to a
    Cluster have to be in one slot, so a Cluster gets a call for each user. The calls are pipelined.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        name: of the file, without .lua. It takes KEYS and ARGV of users one after the other, after the ARGV that all
            share, and returns a list with an item for each user.
        cluster: whether the client is one of a Cluster.
    """

    def __init__(self, client: Any, name: str, *, cluster: bool) -> None:
        self._client = client
        self._script = script(client, name)
        self._users_at_once = 1 if cluster else USERS_AT_ONCE

    async def __call__(self, users: Sequence[UserCall], *, shared: Sequence[Any] = ()) -> list[Any]:
        """What the script returns of each user.

        Raises:
            ForeignValue: a key of a user holds what tastewave did not write; it names the keys of that user.
            What stream.store.away.is_redis_away knows. Some users may have been served.
        """
        results = await self._send(users, shared, self._users_at_once)
        if any(is_foreign(result) for result in results):  # of which user Redis does not say
            results = await self._send(users, shared, 1)
            for user, result in zip(users, results, strict=True):
                if is_foreign(result):
                    with named(" or ".join(user.keys)):
                        raise result
        for result in results:
            if isinstance(result, Exception):
                raise result
        return list(itertools.chain.from_iterable(results))

    async def _send(self, users: Sequence[UserCall], shared: Sequence[Any], users_at_once: int) -> list[Any]:
        """What Redis answers to each call: a list, or an exception."""
        calls = [
            _call(self._script.sha, users[at : at + users_at_once], shared)
            for at in range(0, len(users), users_at_once)
        ]
        results = await self._pipeline(calls)
        unknown = [place for place, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            await self._client.script_load(self._script.script)
            again = await self._pipeline([calls[place] for place in unknown])
            for place, result in zip(unknown, again, strict=True):
                results[place] = result
        return results

    async def _pipeline(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call)
        return await pipeline.execute(raise_on_error=False)


def _call(sha: str, users: Sequence[UserCall], shared: Sequence[Any]) -> list[Any]:
    keys = [key for user in users for key in user.keys]
    return ["EVALSHA", sha, len(keys), *keys, *shared, *(arg for user in users for arg in user.args)]


def _text(name: str) -> str:
    return Path(__file__).with_name(f"{name}.lua").read_text()
