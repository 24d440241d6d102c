"""Many commands at once to a single Redis, and what becomes of its connections."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.exceptions

from stream.settings import load_settings
from stream.store.client import async_client
from stream.store.pipelines import exchange

pytestmark = pytest.mark.servers


@pytest.fixture
async def client(environment: dict[str, str]) -> AsyncIterator[Any]:
    async with async_client(load_settings(redis_url=environment["TASTEWAVE_REDIS_URL"]).redis) as client:
        yield client


@pytest.fixture
async def observer(environment: dict[str, str]) -> AsyncIterator[Any]:
    """A second client of the same server."""
    async with async_client(load_settings(redis_url=environment["TASTEWAVE_REDIS_URL"]).redis) as observer:
        yield observer


async def connections(observer: Any) -> int:
    """How many connections Redis has, without the one that asks."""
    return len(await observer.client_list()) - 1


async def test_answers_are_in_the_order_of_the_commands_and_a_refusal_is_one_of_them(client: Any) -> None:
    packed = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    first, refusal, last = await exchange(client, [("SET", "a", "1"), ("LPUSH", "a", "2"), packed])
    assert (first, last) == (b"OK", b"1")
    assert isinstance(refusal, redis.exceptions.ResponseError)


async def test_exchanges_one_after_the_other_share_a_connection_and_those_at_once_have_their_own(
    client: Any, observer: Any
) -> None:
    before = await connections(observer)
    for number in range(20):
        assert await exchange(client, [("ECHO", str(number))]) == [b"%d" % number]
    assert await connections(observer) == before + 1
    answers = await asyncio.gather(*(exchange(client, [("ECHO", str(number))]) for number in range(5)))
    assert answers == [[b"%d" % number] for number in range(5)]
    assert await connections(observer) == before + 5
    await client.aclose()
    while await connections(observer) > before:  # Redis may answer before it sees the ends
        pass


async def test_a_connection_that_the_server_closed_in_between_is_made_anew(client: Any, observer: Any) -> None:
    await exchange(client, [("PING",)])
    await observer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await observer.ping()  # meanwhile the event loop has seen the end of the connection
    assert await exchange(client, [("ECHO", "a")]) == [b"a"]


async def test_after_a_time_limit_or_a_cancellation_no_answer_goes_to_another_exchange(
    client: Any, observer: Any
) -> None:
    await exchange(client, [("PING",)])
    await observer.execute_command("CLIENT", "PAUSE", 300)
    with pytest.raises(redis.exceptions.TimeoutError):
        await exchange(client, [("ECHO", "late")], timeout_s=0.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(exchange(client, [("ECHO", "later")]), 0.05)  # which cancels it
    assert await exchange(client, [("ECHO", "now")]) == [b"now"]


async def test_a_script_that_redis_lost_is_loaded_again_and_a_refusal_to_load_it_is_what_is_raised(
    client: Any, observer: Any
) -> None:
    script, sha = "return ARGV[1]", "098e0f0d1448c0a81dafe820f66d460eb09263da"
    assert await observer.script_load(script) == sha
    await observer.script_flush()
    call = ("EVALSHA", sha, 0, "a")
    (unknown,) = await exchange(client, [call])
    assert isinstance(unknown, redis.exceptions.NoScriptError)
    assert await exchange(client, [call, ("ECHO", "b")], script=script) == [b"a", b"b"]
    await observer.script_flush()
    await observer.execute_command("ACL", "SETUSER", "default", "-script|load")
    try:
        with pytest.raises(redis.exceptions.NoPermissionError, match=r"script\|load"):
            await exchange(client, [call], script=script)
    finally:
        await observer.execute_command("ACL", "SETUSER", "default", "+@all")
