"""The Lua scripts beside this file, registered with a client: each is one atomic write (or read) in one slot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from stream.store.away import is_foreign, named
from stream.store.pipelines import exchange, exchange_with_cluster

USERS_AT_ONCE = 32
"""So many users take Redis about a millisecond."""


class UserCall(NamedTuple):
    """What a UsersScript needs of one user.

    Attributes:
        keys: of the user, as many of each.
        args: of the user: numbers, texts, what `as_text` gives of bytes, and lists of these.
        reads: packed commands that follow the script, as many of each user. Not for a Cluster: while a slot moves, it
            may answer them before the script.
    """

    keys: Sequence[str]
    args: Sequence[Any] = ()
    reads: Sequence[bytes] = ()


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
    Cluster have to be in one slot, so a Cluster gets a call for each user. Calls do not wait for each other's answers.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        name: of the file, without .lua. It takes the KEYS of users one after the other, and after the ARGV that all
            share one that is MessagePack: a list of the args of each. It returns a list with an item for each user.
        cluster: whether the client is one of a Cluster.
    """

    def __init__(self, client: Any, name: str, *, cluster: bool) -> None:
        self._client = client
        self._script = script(client, name)
        self._exchange: Callable[..., Awaitable[list[Any]]] = exchange_with_cluster if cluster else exchange
        self._users_at_once = 1 if cluster else USERS_AT_ONCE

    async def __call__(self, users: Sequence[UserCall], *, shared: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """For each user what the script returns of it, and then what its reads do.

        Raises:
            ForeignValue: a key of a user holds what tastewave did not write; it names the keys of that user.
            What stream.store.away.is_redis_away knows. Some users may have been served.
        """
        size = self._users_at_once
        chunks = [users[at : at + size] for at in range(0, len(users), size)]
        commands: list[tuple[Any, ...] | bytes] = []
        for chunk in chunks:
            commands.append(_call(self._script.sha, chunk, shared))
            commands += [read for user in chunk for read in user.reads]
        answers = await self._exchange(self._client, commands, script=self._script.script)
        results, reads, begin = list[tuple[Any, ...]](), len(users[0].reads) if users else 0, 0
        failed = any(isinstance(answer, Exception) for answer in answers)
        for chunk in chunks:
            end = begin + 1 + reads * len(chunk)
            if failed and (error := next((one for one in answers[begin:end] if isinstance(one, Exception)), None)):
                await self._raise(error, chunk, shared)
            results += zip(
                answers[begin], *(answers[begin + 1 + read : end : reads] for read in range(reads)), strict=True
            )
            begin = end
        return results

    async def _raise(self, error: Exception, chunk: Sequence[UserCall], shared: Sequence[Any]) -> NoReturn:
        """Raise an error that users have met; if a key is to blame, Redis does not say whose it is."""
        if len(chunk) == 1:
            with named(" or ".join(chunk[0].keys)):
                raise error
        if is_foreign(error):
            for user in chunk:
                call = _call(self._script.sha, [user], shared)
                (answer,) = await self._exchange(self._client, [call], script=self._script.script)
                if isinstance(answer, Exception):
                    await self._raise(answer, [user], shared)
        raise error


def _call(sha: str, users: Sequence[UserCall], shared: Sequence[Any]) -> tuple[Any, ...]:
    keys = [key for user in users for key in user.keys]
    return ("EVALSHA", sha, len(keys), *keys, *shared, packed_args(users))


def packed_args(users: Sequence[UserCall]) -> bytes:
    """What a UsersScript takes of users behind what they share. As an argument each they take three times as long."""
    return msgspec.msgpack.encode([user.args for user in users])


def as_text(value: bytes) -> msgspec.Raw:
    """Bytes in UserCall.args, up to 64 KiB. The MessagePack of Redis's Lua knows no bytes: a Lua text is both."""
    return msgspec.Raw(b"\xda" + len(value).to_bytes(2, "big") + value)


def _text(name: str) -> str:
    return Path(__file__).with_name(f"{name}.lua").read_text()
