"""Many answers in one round trip: to one server, and to each node of a Cluster."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from deploy.local import RedisCluster
from models.contract import LIVE_KEY, feedback_key, history_key, track_fields, track_key
from models.events import Listen, TrackTagged
from models.history import feedback_member, feedback_score, history_member
from stream.reader.reader import AnswerReader
from stream.settings import load_settings
from stream.store.away import ForeignValue
from stream.store.client import async_client

pytestmark = pytest.mark.servers
RELEASE, AT = "0123456789ab", 1_767_225_600_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as made:
        yield made


@pytest.fixture(params=[False, True], ids=["one server", "Cluster"])
def held(request: pytest.FixtureRequest, environment: dict[str, str]) -> tuple[Any, Any]:
    """A client to write with, and one to read with."""
    is_cluster: bool = request.param
    url = request.getfixturevalue("cluster").url if is_cluster else environment["TASTEWAVE_REDIS_URL"]
    client = (redis.RedisCluster if is_cluster else redis.Redis).from_url(url)
    client.hset(LIVE_KEY, "release", RELEASE)
    for number in range(40):
        answer = TrackTagged(
            track_id=f"t{number}", release=RELEASE, status="tagged", genre=f"g{number}", event_time=1, event_id="e",
            tagged_at=2,
        )  # fmt: skip
        client.hset(track_key(RELEASE, answer.track_id), mapping=track_fields(answer))
    return client, load_settings(redis_url=url, redis_cluster=is_cluster).redis


async def test_what_is_asked_at_the_same_moment_is_one_round_trip_and_everybody_gets_their_own(held: Any) -> None:
    _, settings = held
    client = async_client(settings)
    reader, trips = AnswerReader(client, cluster=settings.cluster), list[int]()
    exchange = reader._exchange

    async def counted(client: Any, commands: Any, **options: Any) -> list[Any]:
        trips.append(len(commands))
        return await exchange(client, commands, **options)

    reader._exchange = counted
    assert await reader.live() == RELEASE
    asked = [
        reader.tracks([f"t{number}", f"t{number + 30}"], ("status", "genre"), release=RELEASE) for number in range(20)
    ]
    answers = await asyncio.gather(*asked, reader.live())
    for number, answer in enumerate(answers[:-1]):
        later = [b"tagged", b"g%d" % (number + 30)] if number < 10 else None
        assert answer == [[b"tagged", b"g%d" % number], later]
    assert trips == [1, 40]  # the live release is not asked for again within a second
    assert len(await reader.tracks([f"t{number}" for number in range(1001)], ("status",), release=RELEASE)) == 1001
    assert trips[2:] == [500, 500, 1]
    await client.aclose()


async def test_the_live_release_is_asked_for_again_after_a_second(held: Any) -> None:
    writer, settings = held
    client, now = async_client(settings), 0.0
    reader = AnswerReader(client, cluster=settings.cluster, monotonic=lambda: now)
    assert await reader.live() == RELEASE
    writer.hset(LIVE_KEY, "release", "another")
    now = 0.99
    assert await reader.live() == RELEASE
    now = 1.0
    assert await reader.live() == "another"
    await client.aclose()


async def test_what_a_user_knows_is_read_and_a_foreign_key_is_named(held: Any) -> None:
    writer, settings = held
    client = async_client(settings)
    reader = AnswerReader(client, cluster=settings.cluster)
    heard = Listen(event_id="e", user_id="u", track_id="a", kind="play", at=AT, played_ms=9000, duration_ms=9000)
    said = Listen(event_id="e", user_id="u", track_id="b", kind="dislike", at=AT)
    writer.zadd(history_key("u"), {b"\x00" * 12: 0, history_member(heard): 0})
    writer.zadd(feedback_key("u"), {feedback_member(said): feedback_score(AT)})
    assert await reader.known_tracks("u") == {"a", "b"}
    writer.set(track_key(RELEASE, "foreign"), "text")
    with pytest.raises(ForeignValue, match="foreign"):
        await reader.tracks(["t1", "foreign"], ("status",), release=RELEASE)
    await client.aclose()
