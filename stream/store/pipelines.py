"""Many commands to Redis at once, with all their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions
from redis._parsers.hiredis import NOT_ENOUGH_DATA

_ANSWERS_TIMEOUT_S = 5.0


async def exchange(client: redis.asyncio.Redis, commands: Sequence[tuple[Any, ...] | bytes]) -> list[Any]:
    """Send commands to a single server; returns their answers, which are exceptions where Redis refused.

    A command may be packed already: bytes as Redis reads them.

    redis-py's own pipelines set a timer for each answer, and so take several times the CPU time of this.

    Raises:
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: some may have been done.
    """
    if not commands:
        return []
    pool = client.connection_pool
    connection = await pool.get_connection()
    try:
        async with asyncio.timeout(_ANSWERS_TIMEOUT_S):
            packed = [one if isinstance(one, bytes) else hiredis.pack_command(one) for one in commands]
            await connection.send_packed_command(b"".join(packed))
            answers = await _answers(connection, len(commands))
        refusals = [answer for answer in answers if isinstance(answer, Exception)]
        if any(isinstance(refusal, redis.exceptions.ReadOnlyError) for refusal in refusals):
            await connection.disconnect()  # the next connection to this address may reach the new primary
    except BaseException as error:
        await connection.disconnect(nowait=True)  # answers may be left on it
        if isinstance(error, TimeoutError):
            raise redis.exceptions.TimeoutError(f"no answer within {_ANSWERS_TIMEOUT_S:.0f} s") from error
        raise
    finally:
        await pool.release(connection)
    return answers


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


async def exchange_with_cluster(client: redis.asyncio.RedisCluster, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send commands to the nodes of a Cluster, each with keys of one slot; returns and raises as exchange does."""
    pipeline = client.pipeline()
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=False)
