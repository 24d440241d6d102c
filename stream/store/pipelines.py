"""Many commands to Redis at once, with all their answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import redis.asyncio
import redis.exceptions

_ANSWERS_TIMEOUT_S = 5.0


async def exchange(client: redis.asyncio.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send commands to a single server; returns their answers, which are exceptions where Redis refused.

    redis-py's own pipelines set a timer for each answer, and so take three times the CPU time of this.

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
            await connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                try:
                    answers.append(await connection.read_response(timeout=math.inf))
                except redis.exceptions.ResponseError as error:
                    answers.append(error)
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


async def exchange_with_cluster(client: redis.asyncio.RedisCluster, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send commands to the nodes of a Cluster, each with keys of one slot; returns and raises as exchange does."""
    pipeline = client.pipeline()
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=False)
