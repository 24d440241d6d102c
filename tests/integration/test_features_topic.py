"""What the features topic ends on where workers of two releases hear the same upload at the same time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import redis.asyncio

from models.events import TrackFeatures, TrackUploaded, encode_event
from models.tagging import Tagging
from stream.store.tracks import TrackStore
from stream.tracks.handler import TrackHandler

pytestmark = pytest.mark.servers
EVENT = TrackUploaded(event_id="e1", track_id="t1", uri="file:///a", uploaded_at=1_700_000_000_000)
RECORD = SimpleNamespace(value=encode_event(EVENT))
FEW, MANY = {"msd": "0123456789ab"}, {"msd": "0123456789ab", "mtt": "ba9876543210"}


class Fetched(contextlib.nullcontext):
    file, content_hash = None, "abc"


class Fetcher:
    async def fetch(self, _: str) -> Fetched:
        return Fetched()


class Pool:
    async def tag(self, _: object, *, track_id: str, artist_id: str | None) -> Tagging:
        return Tagging(status="abstained", genre=None, confidence=0.3, genres=(), tags=(), taggram=b"", windows={},
                       duration_s=30.0, lost_s=0.0, timings_ms={})  # fmt: skip


class Publisher:
    """Puts features on a list that stands for the topic, once it may."""

    def __init__(self, topic: list[TrackFeatures]) -> None:
        self.topic, self.asked, self.may = topic, asyncio.Event(), asyncio.Event()

    async def tagged(self, _: object) -> None:
        pass

    async def features(self, features: TrackFeatures) -> None:
        self.asked.set()
        await self.may.wait()
        self.topic.append(features)


@pytest.fixture
async def client(environment: dict[str, str]) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(environment["TASTEWAVE_REDIS_URL"])
    yield client
    await client.aclose()


def handler(client: redis.asyncio.Redis, release: str, networks: dict[str, str], publisher: Publisher) -> TrackHandler:
    return TrackHandler(
        release=release,
        front_end="front-1",
        networks=networks,
        encoders=(),
        fetcher=Fetcher(),
        pool=Pool(),
        store=TrackStore(client, release),
        publisher=publisher,
        turn=lambda _: contextlib.nullcontext(),
        top_k=5,
        future_tolerance_ms=1000,
    )


@pytest.mark.parametrize(("first", "second"), [(FEW, MANY), (MANY, FEW)])
async def test_the_topic_ends_on_the_features_of_all_networks_whoever_is_slow(
    client, first: dict[str, str], second: dict[str, str]
) -> None:
    topic: list[TrackFeatures] = []
    slow, quick = Publisher(topic), Publisher(topic)
    quick.may.set()
    handling = asyncio.create_task(handler(client, "aaaaaaaaaaaa", first, slow).handle(RECORD))
    asked = asyncio.create_task(slow.asked.wait())
    await asyncio.wait([handling, asked], return_when=asyncio.FIRST_COMPLETED)
    assert not handling.done(), handling.exception()
    other = asyncio.create_task(handler(client, "bbbbbbbbbbbb", second, quick).handle(RECORD))
    await asyncio.wait([other], timeout=0.3)  # it would be done by now if it did not wait for the slow one
    slow.may.set()
    await asyncio.gather(handling, other)
    assert [features.networks for features in topic] == ([FEW, MANY] if first is FEW else [MANY])
    assert (await TrackStore(client, "any").published_features("t1")).networks == MANY


async def test_a_lock_that_a_killed_worker_left_ends_by_itself(client) -> None:
    store = TrackStore(client, "aaaaaaaaaaaa")
    async with store.features_lock("t1"):
        (key,) = await client.keys("tw:features:*:lock")
        assert 0 < await client.pttl(key) <= 15_000
        async with store.features_lock("t2"):
            pass
    assert await client.keys("*:lock") == []
    async with store.features_lock("t1"):
        await client.delete(key)  # it ended meanwhile, and leaving it is no error
