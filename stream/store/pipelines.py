"""Many commands to Redis at once, with all their answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions
from redis._parsers.hiredis import NOT_ENOUGH_DATA

_ANSWERS_TIMEOUT_S = 5.0


async def exchange(client: redis.asyncio.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send commands to a single server; returns their answers, which are exceptions where Redis refused.

    redis-py's own pipelines set a timer for each answer, and so take three times the CPU time of this. Each command is
    a tuple that begins with its name, of one word.

    Raises:
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: some may have been done.
    """
    if not commands:
        return []
    pool = client.connection_pool
    connection = await pool.get_connection()
    answers: list[Any] = []
    try:
        async with asyncio.timeout(_ANSWERS_TIMEOUT_S):
            await connection.send_packed_command(b"".join(map(hiredis.pack_command, commands)))
            while len(answers) < len(commands):
                try:
                    answers.append(await connection.read_response(timeout=math.inf))
                except redis.exceptions.ResponseError as error:
                    answers.append(error)
                answers += _answers_at_hand(connection, len(commands) - len(answers))
        if any(isinstance(answer, redis.exceptions.ReadOnlyError) for answer in answers):
            await connection.disconnect()  # the next connection to this address may reach the new primary
    except BaseException as error:
        await connection.disconnect(nowait=True)  # answers may be left on it
        if isinstance(error, TimeoutError):
            raise redis.exceptions.TimeoutError(f"no answer within {_ANSWERS_TIMEOUT_S:.0f} s") from error
        raise
    finally:
        await pool.release(connection)
    return answers


def _answers_at_hand(connection: Any, most: int) -> Iterator[Any]:
    """Answers that have come with the one before. Waiting for each, as redis-py does, takes longer than parsing it."""
    reader: Any = connection._parser._reader
    for _ in range(most):
        if (answer := reader.gets()) is NOT_ENOUGH_DATA:
            return
        if isinstance(answer, redis.exceptions.ConnectionError):
            raise answer
        yield answer


async def exchange_with_cluster(client: redis.asyncio.RedisCluster, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send commands to the nodes of a Cluster, each with keys of one slot; returns and raises as exchange does."""
    pipeline = client.pipeline()
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=False)
