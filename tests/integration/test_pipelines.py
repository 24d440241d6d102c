"""Many commands at once to a single Redis, and what becomes of its connections."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from stream.settings import load_settings
from stream.store.client import async_client
from stream.store.pipelines import exchange

pytestmark = pytest.mark.servers


@pytest.fixture
async def client(environment: dict[str, str]) -> AsyncIterator[Any]:
    client = async_client(load_settings(redis_url=environment["TASTEWAVE_REDIS_URL"]).redis)
    yield client
    await client.aclose()


async def connections(client: Any) -> int:
    """How many connections Redis has, without the one that asks."""
    return len(await client.client_list()) - 1


async def test_answers_are_in_the_order_of_the_commands_and_a_refusal_is_one_of_them(client: Any) -> None:
    packed = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    first, refusal, last = await exchange(client, [("SET", "a", "1"), ("LPUSH", "a", "2"), packed])
    assert (first, last) == (b"OK", b"1")
    assert isinstance(refusal, redis.exceptions.ResponseError)


async def test_exchanges_one_after_the_other_share_a_connection_and_those_at_once_have_their_own(client: Any) -> None:
    async with async_client(load_settings(redis_url=url_of(client)).redis) as observer:
        before = await connections(observer)
        for number in range(20):
            assert await exchange(client, [("ECHO", str(number))]) == [b"%d" % number]
        assert await connections(observer) == before + 1
        answers = await asyncio.gather(*(exchange(client, [("ECHO", str(number))]) for number in range(5)))
        assert answers == [[b"%d" % number] for number in range(5)]
        assert await connections(observer) <= before + 5
        await client.aclose()
        assert await connections(observer) == before


async def test_a_connection_that_the_server_closed_in_between_is_made_anew(client: Any) -> None:
    await exchange(client, [("PING",)])
    async with async_client(load_settings(redis_url=url_of(client)).redis) as observer:
        await observer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await observer.ping()  # meanwhile the event loop has seen the end of the connection
    assert await exchange(client, [("ECHO", "a")]) == [b"a"]


async def test_after_a_time_limit_or_a_cancellation_no_answer_goes_to_another_exchange(client: Any) -> None:
    await exchange(client, [("PING",)])
    async with async_client(load_settings(redis_url=url_of(client)).redis) as observer:
        await observer.execute_command("CLIENT", "PAUSE", 300)
        with pytest.raises(redis.exceptions.TimeoutError):
            await exchange(client, [("ECHO", "late")], timeout_s=0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(exchange(client, [("ECHO", "later")]), 0.05)  # which cancels it
        assert await exchange(client, [("ECHO", "now")]) == [b"now"]


def url_of(client: Any) -> str:
    options = client.connection_pool.connection_kwargs
    return f"redis://{options['host']}:{options['port']}/0"
