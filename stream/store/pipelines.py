"""Many commands to Redis at once, with all their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import redis.asyncio
import redis.exceptions
from redis._parsers.hiredis import NOT_ENOUGH_DATA

_ANSWERS_TIMEOUT_S = 5.0
# Connections of a pool between two exchanges. They stay taken from it: taking one and giving it back costs redis-py as
# much CPU time as a small exchange does.
_IDLE: WeakKeyDictionary[redis.asyncio.ConnectionPool, list[Any]] = WeakKeyDictionary()


async def exchange(
    client: redis.asyncio.Redis,
    commands: Sequence[tuple[Any, ...] | bytes],
    *,
    script: str | None = None,
    timeout_s: float | None = None,
) -> list[Any]:
    """Send commands to a single server; returns their answers, which are exceptions where Redis refused.

    A command may be packed already: bytes as Redis reads them.

    redis-py's own pipelines set a timer for each answer, and so take several times the CPU time of this.

    Args:
        client: one that returns bytes.
        commands: to send.
        script: that they call; where Redis does not know it, it is loaded, and all are sent once more.
        timeout_s: how long all of it may take.

    Raises:
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: some may have been done.
        redis.exceptions.ResponseError: Redis refuses to load the script.
    """
    if not commands:
        return []
    timeout_s = timeout_s or _ANSWERS_TIMEOUT_S
    idle = _IDLE.setdefault(client.connection_pool, [])
    try:
        async with asyncio.timeout(timeout_s):
            connection: Any = idle.pop() if idle else await client.connection_pool.get_connection()
            try:
                answers = await _exchange(connection, commands)
                if script and _lacks_script(answers):  # the same connection leads to the same server
                    loaded, *answers = await _exchange(connection, [("SCRIPT", "LOAD", script), *commands])
                    if isinstance(loaded, Exception):
                        raise loaded
            except BaseException:
                await connection.disconnect(nowait=True)  # answers may be left on it
                raise
            finally:
                idle.append(connection)
    except TimeoutError as error:
        raise redis.exceptions.TimeoutError(f"no answer within {timeout_s:.0f} s") from error
    return answers


async def _exchange(connection: Any, commands: Sequence[tuple[Any, ...] | bytes]) -> list[Any]:
    """Likewise, on a connection of redis-py.

    It writes to the connection's stream, a private member, since send_packed_command sets another timer.
    """
    if connection.is_connected and await connection.can_read():  # no answer is left on it: the server has closed it
        await connection.disconnect()
    if not connection.is_connected:
        await connection.connect()
    packed = [one if isinstance(one, bytes) else hiredis.pack_command(one) for one in commands]
    try:
        connection._writer.write(b"".join(packed))
        await connection._writer.drain()
        answers = await _answers(connection, len(commands))
    except OSError as error:
        raise redis.exceptions.ConnectionError(str(error)) from error
    if any(isinstance(answer, redis.exceptions.ReadOnlyError) for answer in answers):
        await connection.disconnect()  # the next connection to this address may reach the new primary
    return answers


def _lacks_script(answers: Sequence[Any]) -> bool:
    return any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers)


def packed_word(text: str) -> bytes:
    """A word of a command as Redis reads it."""
    encoded = text.encode()
    return b"$%d\r\n%s\r\n" % (len(encoded), encoded)


async def _answers(connection: Any, count: int) -> list[Any]:
    """The next answers on a connection.

    It asks hiredis' reader, a private member of redis-py's parser, since read_response takes as long for an answer as
    hiredis does.
    """
    parser, answers = connection._parser, list[Any]()
    next_answer = parser._reader.gets
    while len(answers) < count:
        answer = next_answer()
        if answer is NOT_ENOUGH_DATA:
            await parser.read_from_socket()
        elif isinstance(answer, redis.exceptions.ConnectionError):
            raise answer
        else:
            answers.append(answer)
    return answers


async def exchange_with_cluster(
    client: redis.asyncio.RedisCluster,
    commands: Sequence[tuple[Any, ...]],
    *,
    script: str | None = None,
    timeout_s: float | None = None,
) -> list[Any]:
    """Send commands to the nodes of a Cluster, each with keys of one slot; returns and raises as exchange does.

    Where no time is given, the client's own time limits hold. Beyond it TimeoutError is raised.
    """
    async with asyncio.timeout(timeout_s):
        answers = await _exchange_with_cluster(client, commands)
        if script and _lacks_script(answers):
            await client.script_load(script)
            answers = await _exchange_with_cluster(client, commands)
        return answers


async def _exchange_with_cluster(client: redis.asyncio.RedisCluster, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    pipeline = client.pipeline()
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=False)
