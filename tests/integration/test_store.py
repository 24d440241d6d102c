"""The store's scripts on a real Redis."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
import redis
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.contract import LIVE_KEY, decode_taggram, encode_taggram, taggram_key, track_fields, track_key
from models.events import TrackTagged
from stream.store.away import ForeignValue, is_redis_away, needs_another_setting, redis_advice
from stream.store.forgotten import ForgottenTrack, forget_track
from stream.store.hearings import Hearings, KilledWorkers
from stream.store.heartbeat import Heartbeat, LostWrites
from stream.store.live import LiveRelease, activate
from stream.store.tracks import PublishedFeatures, TrackStore

pytestmark = pytest.mark.servers
RELEASE = "0123456789ab"


def answer(status: str = "tagged", event_time: int = 1000, event_id: str = "e1", **values) -> TrackTagged:
    values.setdefault("tagged_at", event_time + 5)
    if status == "tagged":
        values.setdefault("genre", "jazz")
        values.setdefault("confidence", 0.75)
    if status == "failed":
        values.setdefault("reason", "not_audio")
    else:
        values.setdefault("genres", (("jazz", 0.75), ("blues", 0.25)))
        values.setdefault("tags", (("saxophone", 0.5),))
    values.setdefault("track_id", "t1")
    return TrackTagged(release=RELEASE, status=status, event_time=event_time, event_id=event_id, **values)


def published(event_time: int, content: str, **networks: str) -> PublishedFeatures:
    return PublishedFeatures(
        event_time=event_time, event_id="e1", content=content, networks=networks or {"msd": "0123456789ab"}
    )


@pytest.fixture
async def client(environment: dict[str, str]) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(environment["TASTEWAVE_REDIS_URL"])
    yield client
    await client.aclose()


@pytest.fixture
def store(client) -> TrackStore:
    return TrackStore(client, RELEASE)


async def test_what_is_put_is_what_is_held_and_what_other_services_read(store, client) -> None:
    written = answer(title="Ünïcode", artist_id="a1", embedding=(0.6, 0.8))
    held = await store.put(written)
    assert held == await store.get("t1")
    assert held.embedding == pytest.approx((0.6, 0.8))
    fields = await client.hgetall(track_key(RELEASE, "t1"))
    assert fields == {name.encode(): value for name, value in track_fields(written).items()}
    assert fields[b"genre"] == b"jazz"
    assert fields[b"confidence"] == b"0.75"
    assert fields[b"tags"] == b'[["saxophone",0.5]]'
    assert len(fields[b"embedding"]) == 8


async def test_an_unknown_track_is_none(store) -> None:
    assert await store.get("nobody") is None


async def test_an_older_event_never_replaces_a_newer_answer(store) -> None:
    newer = await store.put(answer(event_time=2000))
    assert await store.put(answer(event_time=1000, genre="rock")) == newer


@pytest.mark.parametrize("status", ["tagged", "failed"])
async def test_of_two_events_of_one_time_that_of_the_greater_id_stands(store, status: str) -> None:
    greater = await store.put(answer(status, event_id="e2"))
    assert await store.put(answer(status, event_id="e1")) == greater
    greatest = answer(status, event_id="e20")
    assert await store.put(greatest) == greatest
    assert (await store.put(answer(status, 1001, event_id="e1"))).event_id == "e1"


async def test_an_answer_without_an_event_id_gives_way_to_one_of_its_time(store, client) -> None:
    await store.put(answer())
    await client.hdel(track_key(RELEASE, "t1"), "event_id")  # as versions before this one wrote it
    assert (await store.get("t1")).event_id == ""
    assert (await store.put(answer(event_id="e2"))).event_id == "e2"


async def test_the_same_event_again_changes_nothing(store) -> None:
    first = await store.put(answer())
    assert await store.put(answer(tagged_at=9999)) == first


async def test_a_newer_answer_leaves_no_field_of_the_older_one(store) -> None:
    await store.put(answer(title="old title", artist_id="a1"))
    held = await store.put(answer("abstained", 2000, confidence=0.3))
    assert held.genre is None
    assert held.title is None


async def test_a_failure_never_replaces_a_good_answer_and_a_good_answer_replaces_a_newer_failure(store) -> None:
    good = await store.put(answer("abstained", 1000, confidence=0.2))
    assert await store.put(answer("failed", 2000)) == good
    await store.put(answer("failed", 2, track_id="t2"))
    assert (await store.put(answer(event_time=1, track_id="t2", genre="pop"))).status == "tagged"


def test_answers_in_any_order_end_the_same(environment) -> None:
    statuses = st.sampled_from(["tagged", "abstained", "failed"])
    # Ids of which one begins with another, and such as a locale would put in another order than their bytes.
    ids = st.sampled_from(["", "a", "aa", "B", "b", "é", "z", "\x00", "a\x00", "\U0001f3b5", "\uffff"]) | st.text(
        max_size=3
    )
    events = st.lists(
        st.tuples(statuses, st.integers(1, 3), ids), min_size=1, max_size=8, unique_by=lambda event: event[1:]
    )

    @settings(max_examples=60)
    @given(events=events, seed=st.integers(0, 2**16))
    def ends_the_same(events: list[tuple[str, int, str]], seed: int) -> None:
        async def ending(order: list[tuple[str, int, str]]) -> TrackTagged:
            async with redis.asyncio.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as client:
                await client.delete(track_key(RELEASE, "t1"))
                store = TrackStore(client, RELEASE)
                held = None
                for status, event_time, event_id in order:
                    held = await store.put(answer(status, event_time, event_id))
                return held

        shuffled = random.Random(seed).sample(events, len(events))
        held = asyncio.run(ending(events))
        assert held == asyncio.run(ending(shuffled))
        good = [event for event in events if event[0] != "failed"]
        stands = max(good or events, key=lambda event: (event[1], event[2].encode()))
        assert (held.status, held.event_time, held.event_id) == stands

    ends_the_same()


async def test_taggrams_are_kept_when_asked_for_and_follow_their_answer(client) -> None:
    import numpy as np

    store = TrackStore(client, RELEASE, keep_taggrams=True)
    first, second = np.full((3, 50), 0.25, np.float32), np.full((2, 50), 0.5, np.float32)
    key = taggram_key(RELEASE, "t1")
    await store.put(answer(event_time=2), taggram=encode_taggram(first))
    await store.put(answer(event_time=1), taggram=encode_taggram(second))
    assert decode_taggram(await client.get(key)) == pytest.approx(first, abs=0.002)
    await store.put(answer(event_time=3), taggram=encode_taggram(second))
    assert decode_taggram(await client.get(key)) == pytest.approx(second, abs=0.002)


async def test_a_forgotten_track_is_gone_in_all_releases_and_a_later_upload_is_not(client) -> None:
    store, other = TrackStore(client, RELEASE, keep_taggrams=True), TrackStore(client, "another12345")
    await store.put(answer(event_time=2000), taggram=b"taggram")
    await other.put(answer(event_time=3000))
    await store.mark_features("t1", published(2000, "a:b"))
    releases = ["another12345", "unknown12345", RELEASE]
    forgotten = await forget_track(client, "t1", 2000, releases=releases)
    assert forgotten == ForgottenTrack(2000, releases=(RELEASE,), features=True)
    assert {*await client.keys()} == {b"tw:forgotten-track:{t1}", b"tw:another12345:track:{t1}"}
    assert await client.ttl("tw:forgotten-track:{t1}") == -1
    assert await store.forgotten_at("t1") == 2000
    assert await store.forgotten_at("t2") == 0
    again = await forget_track(client, "t1", 1000, releases=releases)
    assert again == ForgottenTrack(2000, releases=(), features=False)
    await store.put(answer(event_time=1999), taggram=b"taggram")  # of a worker that was hearing it
    await store.drop("t1", 2000)
    assert await store.get("t1") is None
    assert await client.exists(taggram_key(RELEASE, "t1")) == 0
    later = await store.put(answer(event_time=2001))
    await store.drop("t1", 2000)
    assert await store.get("t1") == later


async def test_a_mark_that_is_not_tastewaves_is_named(store, client) -> None:
    await client.set("tw:forgotten-track:{t1}", "foreign")
    for use in (store.forgotten_at("t1"), forget_track(client, "t1", 1, releases=[])):
        with pytest.raises(ForeignValue, match="forgotten-track"):
            await use


async def test_the_first_worker_makes_its_release_live_and_later_ones_do_not(client, environment) -> None:
    first, second = LiveRelease(client, "aaaaaaaaaaaa"), LiveRelease(client, "bbbbbbbbbbbb")
    assert await first.ensure() == ("aaaaaaaaaaaa", False)
    assert await second.ensure() == ("aaaaaaaaaaaa", True)
    with redis.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as operator:
        assert activate(operator, "bbbbbbbbbbbb") == "aaaaaaaaaaaa"
        live = await client.hgetall(LIVE_KEY)
        assert (live[b"contract"], live[b"release"], live[b"previous"]) == (b"1", b"bbbbbbbbbbbb", b"aaaaaaaaaaaa")
        assert activate(operator, "bbbbbbbbbbbb") == "aaaaaaaaaaaa"  # going live again is no change
    assert await client.hgetall(LIVE_KEY) == live


async def test_a_live_release_that_redis_lost_is_put_back_as_it_was_last_seen(client, environment) -> None:
    live = LiveRelease(client, "bbbbbbbbbbbb")
    heartbeat = Heartbeat(client, live)
    with redis.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as operator:
        assert activate(operator, "aaaaaaaaaaaa") is None
        assert await heartbeat.beat() is None
        await client.delete(LIVE_KEY)
        assert await heartbeat.beat() is not None
        assert await client.hget(LIVE_KEY, "release") == b"aaaaaaaaaaaa"
        activate(operator, "bbbbbbbbbbbb")
        assert await heartbeat.beat() is None
        await client.delete(LIVE_KEY)
        assert await heartbeat.beat() is not None
    assert await client.hget(LIVE_KEY, "release") == b"bbbbbbbbbbbb"


async def test_writes_that_redis_lost_are_told_once_and_since_when(client) -> None:
    live = LiveRelease(client, RELEASE)
    await live.ensure()
    heartbeat = Heartbeat(client, live)
    before_ms = time.time_ns() // 1_000_000
    assert await heartbeat.beat() is None
    (key,) = await client.keys("tw:health:*")
    first = await client.get(key)
    await asyncio.sleep(0.002)  # a later millisecond
    assert await heartbeat.beat() is None
    await client.set(key, first)
    assert await heartbeat.beat() == LostWrites(int(first))
    assert int(first) >= before_ms
    assert await heartbeat.beat() is None
    await client.delete(key)
    assert await heartbeat.beat() == LostWrites(int(first))
    assert 0 < await client.ttl(key) <= 86_400


async def test_a_heartbeat_that_is_lost_after_the_first_one_is_a_loss(client) -> None:
    live = LiveRelease(client, RELEASE)
    await live.ensure()
    heartbeat = Heartbeat(client, live)
    await heartbeat.beat()
    (key,) = await client.keys("tw:health:*")
    first = int(await client.get(key))
    await client.delete(key)
    assert await heartbeat.beat() == LostWrites(first)


async def test_what_features_were_published_from_is_remembered_and_never_goes_back(store, client) -> None:
    assert await store.published_features("t1") is None
    newer, older = published(2000, "front-1:abc"), published(1000, "front-1:def")
    await store.mark_features("t1", newer)
    await store.mark_features("t1", older)
    assert await store.published_features("t1") == newer
    again = published(2000, "front-2:abc", msd="0123456789ab", mtt="ba9876543210")
    await store.mark_features("t1", again)
    assert await store.published_features("t1") == again
    assert again.heard_by({"msd": "0123456789ab"}, ())
    assert not again.heard_by({"msd": "another"}, ())
    assert not again.heard_by({"msd": "0123456789ab"}, ("cdef01234567",))
    assert not newer.heard_by(again.networks, ())
    await client.set("tw:features:{t1}", "1000 front-1:abc")  # as versions before this one wrote it
    assert await store.published_features("t1") is None
    await store.mark_features("t1", older)
    assert await store.published_features("t1") == older


@pytest.mark.parametrize(
    ("command", "part"),
    [("hset", "store"), ("set", "store"), ("hdel", "store"), ("sadd", "hearings"), ("srem", "hearings"),
     ("evalsha", "store"), ("evalsha", "hearings")],
)  # fmt: skip
async def test_a_rehearsal_leaves_nothing_and_is_refused_where_an_answer_would_be(
    client, environment, command: str, part: str
) -> None:
    await client.acl_setuser("worker", enabled=True, nopass=True, keys=["*"], categories=["+@all"])
    url = environment["TASTEWAVE_REDIS_URL"].replace("//", "//worker:any@")
    async with redis.asyncio.Redis.from_url(url) as worker:
        parts = {"store": TrackStore(worker, RELEASE, keep_taggrams=True), "hearings": Hearings(worker, RELEASE)}
        await parts[part].rehearse()
        assert await client.keys() == []
        await client.acl_setuser("worker", enabled=True, commands=[f"-{command}"])
        with pytest.raises(redis.exceptions.ResponseError) as raised:
            await parts[part].rehearse()
    await client.acl_deluser("worker")
    assert is_redis_away(raised.value)
    assert "deploy/docs/production.md" in redis_advice(raised.value)


class Place(NamedTuple):
    topic: str = "uploads"
    partition: int = 0
    offset: int = 7


class Killed:
    """The client of a worker that is killed while it hears: it takes nothing back."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def srem(self, *_: object) -> None:
        """Nothing."""

    delete = srem


async def hear(hearings: Hearings, place: Place) -> None:
    async with hearings.of(place):
        pass


async def test_a_record_is_given_up_when_it_has_killed_five_workers_and_may_be_tried_anew_later(client) -> None:
    for _ in range(5):
        await hear(Hearings(Killed(client), RELEASE), Place())
    (key,) = await client.keys()
    assert 0 < await client.ttl(key) <= 86_400
    worker = Hearings(client, RELEASE)
    await hear(worker, Place(offset=8))
    await hear(Hearings(client, "another12345"), Place())
    for _ in range(2):  # a dead letter that could not be sent is tried again
        with pytest.raises(KilledWorkers, match="5 workers were killed"):
            await hear(worker, Place())
    assert 0 < await client.ttl(key) <= 600
    await client.delete(key)  # as it is ten minutes later
    await hear(worker, Place())


async def test_a_record_that_ends_or_waits_in_a_worker_that_lives_is_not_counted(client) -> None:
    worker = Hearings(client, RELEASE)
    for _ in range(10):
        await hear(worker, Place())
        with pytest.raises(KeyError):
            async with worker.of(Place()):
                raise KeyError
    assert await client.keys() == []
    worker = Hearings(Killed(client), RELEASE)
    for _ in range(10):  # Redis was away when it ended: this worker knows itself again
        await hear(worker, Place())
    assert await client.scard((await client.keys())[0]) == 1


async def test_what_was_near_twice_when_a_worker_was_killed_is_heard_alone(client) -> None:
    guilty, near = Place(offset=1), Place(offset=2)
    for _ in range(2):
        worker = Hearings(Killed(client), RELEASE)
        for place in (guilty, near):
            await hear(worker, place)
    worker, heard = Hearings(client, RELEASE), asyncio.Event()

    async def hear_guilty() -> None:
        async with worker.of(guilty):
            heard.set()

    async with worker.of(near):
        waiting = asyncio.create_task(hear_guilty())
        await hear(worker, Place(offset=3))  # another record need not wait
        await asyncio.sleep(0)
        marks = [await client.scard(f"tw:{RELEASE}:hearing:{{uploads/0/{place.offset}}}") for place in (guilty, near)]
        assert marks == [2, 3]
        assert not heard.is_set()
    await waiting
    assert heard.is_set()
    assert await client.keys() == []


async def test_a_redis_that_takes_no_writes_is_away(redis_server) -> None:
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        store = TrackStore(client, RELEASE)
        await store.put(answer())
        await client.config_set("maxmemory", "1")
        with pytest.raises(redis.exceptions.OutOfMemoryError) as full:
            await store.put(answer(track_id="t2"))
        assert is_redis_away(full.value)
        await client.config_set("maxmemory", "0")
        await client.config_set("min-replicas-to-write", "1")
        with pytest.raises(Exception, match="NOREPLICAS") as lonely:
            await Heartbeat(client, LiveRelease(client, RELEASE)).beat()
        assert is_redis_away(lonely.value)
        await client.config_set("min-replicas-to-write", "0")
        redis_server.kill()
        with pytest.raises(Exception) as dead:  # noqa: PT011 - its kind is what is asked
            await store.get("t1")
        assert is_redis_away(dead.value)
    assert not is_redis_away(KeyError("a fault of ours"))


async def test_what_redis_refuses_is_its_own_trouble_and_a_fault_of_a_script_is_ours(client, servers) -> None:
    await client.acl_setuser("reader", enabled=True, nopass=True, keys=["tw:*"], commands=["+get", "+evalsha"])
    await client.set("tw:live", "foreign")
    await client.hset(track_key(RELEASE, "t1"), "status", "tagged")  # and no event_time
    port = servers.redis.port

    async def error(use: Callable[[redis.asyncio.Redis], Awaitable[object]], **options) -> Exception:
        async with redis.asyncio.Redis(port=port, retry=Retry(NoBackoff(), 0), **options) as other:
            with pytest.raises(redis.RedisError) as raised:
                await use(other)
            return raised.value

    def ping(client: redis.asyncio.Redis) -> Awaitable[object]:
        return client.ping()

    refusals = {
        "production.md": await error(lambda client: client.set("tw:x", 1), username="reader"),
        "user and password": await error(ping, username="reader2", password="wrong"),
        "database that it has": await error(ping, db=4711),
        "delete the key": await error(lambda client: LiveRelease(client, RELEASE).ensure()),
        "Redis 6 or later": await error(lambda client: client.execute_command("TASTE")),
    }
    for advice, refused in refusals.items():
        assert is_redis_away(refused), refused
        assert advice in redis_advice(refused)
    assert [advice for advice, refused in refusals.items() if needs_another_setting(refused)] == [
        "database that it has",
        "Redis 6 or later",
    ]
    assert is_redis_away(await error(lambda client: client.get("tw:x"), username="reader", socket_timeout=1e-9))
    assert not is_redis_away(await error(lambda client: TrackStore(client, RELEASE).put(answer())))
    assert not is_redis_away(await error(lambda client: client.set("tw:x", object())))  # type: ignore[arg-type]
    await client.acl_deluser("reader")


async def test_a_key_of_another_type_is_named(store, client) -> None:
    await client.set(track_key(RELEASE, "t1"), "foreign")
    await client.hset("tw:features:{t1}", "foreign", "1")
    mark = published(1, "a:b", msd="0123456789ab")
    for use, key in (
        (store.get("t1"), track_key(RELEASE, "t1")),
        (store.put(answer()), track_key(RELEASE, "t1")),
        (store.published_features("t1"), "tw:features:{t1}"),
        (store.mark_features("t1", mark), "tw:features:{t1}"),
    ):
        with pytest.raises(ForeignValue) as raised:
            await use
        assert repr(key) in str(raised.value)
        assert is_redis_away(raised.value)


@pytest.mark.parametrize(
    "foreign",
    [
        {"name": "no answer"},
        {"status": "tagged"},
        {"event_time": "soon"},
        {"genres": "{"},
        {"tags": '{"a": 1}'},
        {"genre": b"\xff"},
        {"embedding": b"12345"},
    ],
)
async def test_a_hash_that_is_no_answer_is_named(store, client, foreign: dict[str, Any]) -> None:
    key = track_key(RELEASE, "t1")
    if not foreign.keys() & {"name", "status"}:  # an answer, with one field that is none
        await store.put(answer())
    await client.hset(key, mapping=foreign)
    with pytest.raises(ForeignValue, match="did not write") as raised:
        await store.get("t1")
    assert repr(key) in str(raised.value)
