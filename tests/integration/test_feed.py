"""The feed of the live release, on a real Kafka and Redis."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import AsyncGeneratorType

import pytest

from deploy.local import Kafka
from models.contract import TRACKS_TAGGED, USERS_EMBEDDED
from stream.serve import reading
from stream.serve.feed import Feed, FeedEvent, NotCaughtUp
from stream.serve.places import Places
from stream.serve.taste import Taste
from tests.platform.clock import now_ms
from tests.platform.feeds import LATER_RELEASE, RELEASE, Topics, eventually, place, settings_of

DAY_MS = 86_400_000


@pytest.fixture
async def topics(environment: dict[str, str]) -> AsyncIterator[Topics]:
    topics = Topics(settings_of(environment))
    await topics.make_live(RELEASE)
    yield topics
    await topics.close()


async def ids(hits) -> list[str]:
    found = await hits
    return [hit.id for hit in found]


async def test_tracks_that_are_tagged_are_found_until_they_are_taken_back(topics: Topics) -> None:
    topics.tag("mine", place(1.0))
    topics.tag("near", place(0.9))
    topics.tag("far", place(0.1), genre="rock")
    topics.tag("nowhere", None)
    topics.tag("unsure", place(0.5), status="abstained", genre=None)
    topics.tag("broken", None, status="failed", genre=None, reason="not_audio")
    topics.send(TRACKS_TAGGED, f"{RELEASE}:odd", b'{"status": "tagged"}')
    topics.tag("crooked", (3.0, 4.0, 0.0, 0.0))
    async with topics.feed() as feed:
        taste = feed.taste
        assert taste.release == RELEASE
        assert await ids(taste.similar("mine", k=5)) == ["near", "unsure", "far"]
        assert [hit.score for hit in await taste.similar("mine", k=1)] == pytest.approx([0.9])
        assert await ids(taste.similar("mine", k=5, genre="rock")) == ["far"]
        assert await taste.similar("mine", k=5, genre="polka") == []
        assert await taste.similar("nowhere", k=5) is None
        assert await taste.similar("never heard of", k=5) is None
        assert await ids(taste.tracks_for(place(1.0), k=2, leave_out=["mine", "never heard of"])) == ["near", "unsure"]
        assert taste.genres() == {"jazz": 4, "rock": 1}
        assert taste.tracks_of_genre("jazz", limit=2) == ["crooked", "mine"]
        assert taste.tracks_of_genre("jazz", after="mine", limit=2) == ["near", "nowhere"]
        assert (feed.state().tracks, feed.state().problem, feed.state().lag) == (4, None, 0)

        topics.tag("newer", place(0.95), genre="rock")
        topics.tag("near", place(0.2), genre="rock")
        topics.take_back(TRACKS_TAGGED, "unsure")
        topics.flush()
        await eventually(lambda: taste.genres() == {"jazz": 3, "rock": 3} and feed.state().tracks == 4)
        assert await ids(taste.similar("mine", k=5)) == ["newer", "near", "far"]
        topics.forget("track", "newer")
        topics.flush()
        await eventually(lambda: feed.state().tracks == 3)
        assert await ids(taste.similar("mine", k=5)) == ["near", "far"]
        topics.tag("newer", place(0.95), event_time=now_ms() - DAY_MS)  # a worker that had not heard of it yet
        topics.tag("last", place(0.3))
        topics.flush()
        await eventually(lambda: "last" in taste.tracks_of_genre("jazz", limit=9))
        assert await ids(taste.similar("mine", k=5)) == ["last", "near", "far"]


async def test_an_editor_is_asked_about_tracks_without_a_genre_first_and_then_the_least_confident(
    topics: Topics,
) -> None:
    ranks = {f"t{number}": 0.5 + number % 20 / 40 for number in range(40)}  # two of each
    for track_id, confidence in ranks.items():
        topics.tag(track_id, place(0.5), confidence=confidence)
    for number in range(3):
        topics.tag(f"unsure {number}", None, status="abstained", genre=None, confidence=0.75 - number / 4)
    ranks |= {"unsure 2": -0.75, "unsure 1": -0.5, "unsure 0": -0.25}
    topics.tag("broken", None, status="failed", genre=None, reason="not_audio")
    topics.tag("corrected", place(0.5), status="corrected", confidence=0.1)
    async with topics.feed() as feed:
        taste = feed.taste

        async def queue() -> list[str]:
            told = await taste.doubtful(limit=7)
            while len(more := await taste.doubtful(after=told[-1][1:], limit=7)) == 7:
                told += more
            return [track.id for track in told + more]

        told = await queue()
        assert (sorted(told), [ranks[track_id] for track_id in told]) == (sorted(ranks), sorted(ranks.values()))
        assert await taste.similar("unsure 1", k=5) is None
        topics.tag("unsure 2", None, status="corrected", genre="dub", confidence=0.25)
        topics.forget("track", "unsure 1")
        topics.take_back(TRACKS_TAGGED, "t0")
        topics.tag("t20", place(0.5), confidence=1.0)
        topics.flush()
        gone = {"unsure 1", "unsure 2", "t0"}
        await eventually(lambda: taste.genres() == {"dub": 1, "jazz": 40} and feed.state().lag == 0)
        left = await queue()
        assert (left[0], left[-1]) == ("unsure 0", "t20")
        assert left[:-1] == [track_id for track_id in told if track_id not in {*gone, "t20"}]


async def test_similar_tracks_are_other_recordings(topics: Topics) -> None:
    topics.tag("mine", place(1.0), content_hash="00" * 32, duration_ms=200_000)
    topics.tag("same file", place(0.2), content_hash="00" * 32, duration_ms=200_000)
    topics.tag("other coding", place(0.999), content_hash="11" * 32, duration_ms=200_400)
    topics.tag("other length", place(0.998), content_hash="22" * 32, duration_ms=240_000)
    topics.tag("earlier version", place(0.99999))
    topics.tag("earlier version, other", place(0.997))
    for copy in range(30):
        topics.tag(f"copy {copy}", place(1.0), content_hash="00" * 32)
    async with topics.feed() as feed:
        assert await ids(feed.taste.similar("mine", k=2)) == ["other length", "earlier version, other"]
        assert await ids(feed.taste.similar("mine", k=9)) == ["other length", "earlier version, other"]


async def test_an_audience_are_the_users_of_the_last_days_and_not_who_was_forgotten(topics: Topics) -> None:
    topics.tag("song", place(1.0))
    topics.embed("fan", place(0.9))
    topics.embed("other", place(0.1))
    topics.embed("everybody", place(0.99), source="global")
    topics.embed("long gone", place(0.95), event_time=now_ms() - 31 * DAY_MS)
    topics.embed("unknown", place(0.94), release=LATER_RELEASE)
    topics.embed("forgotten before", place(0.93))
    topics.forget("user", "forgotten before", at=now_ms() + 1000)
    async with topics.feed() as feed:
        taste = feed.taste
        assert await ids(taste.audience("song", k=5)) == ["fan", "other"]
        assert await taste.audience("never heard of", k=5) is None
        topics.embed("new", place(0.92))
        topics.embed("other", place(0.91))
        topics.flush()
        await eventually(lambda: feed.state().users == 3)
        assert await ids(taste.audience("song", k=5)) == ["new", "other", "fan"]
        topics.forget("user", "fan")  # without the empty value that follows on the other topic
        topics.flush()
        await eventually(lambda: feed.state().users == 2)
        assert await ids(taste.audience("song", k=5)) == ["new", "other"]
        topics.take_back(USERS_EMBEDDED, "new")
        topics.flush()
        await eventually(lambda: feed.state().users == 1)


async def test_another_release_is_answered_from_when_it_was_read_and_never_mixed(topics: Topics) -> None:
    for number in range(1000):
        share = number / 1000
        topics.tag(f"a{number}", place(share), genre=f"genre {number % 3}")
        topics.tag(f"b{number}", place(0, share), release=LATER_RELEASE, genre=f"genre {number % 3}")
        topics.embed(f"a{number}", place(share))
        topics.embed(f"b{number}", place(0, share), release=LATER_RELEASE)
    answered = set()

    async def ask(taste: Taste) -> None:
        letter = {RELEASE: "a", LATER_RELEASE: "b"}[taste.release]
        hits = await taste.similar(f"{letter}7", k=20, genre="genre 1")
        users = await taste.audience(f"{letter}7", k=20)
        assert hits is not None
        assert users is not None
        names = [hit.id for hit in hits + users] + taste.tracks_of_genre("genre 2", limit=50)
        assert len(names) == 90
        assert {name[0] for name in names} == {letter}
        answered.add(taste.release)

    async with topics.feed() as feed:
        await asyncio.gather(*(ask(feed.taste) for _ in range(5)))
        await topics.make_live(LATER_RELEASE)
        await eventually(lambda: feed.state().loading == LATER_RELEASE)
        assert feed.state().release == RELEASE
        while feed.state().release == RELEASE:
            await asyncio.gather(*(ask(feed.taste) for _ in range(5)))
        await ask(feed.taste)
        assert answered == {RELEASE, LATER_RELEASE}
        assert (feed.state().release, feed.state().loading) == (LATER_RELEASE, None)
        await topics.make_live(RELEASE)
        await eventually(lambda: feed.state().release == RELEASE)
        await ask(feed.taste)


async def next_of(events, *, timeout_s: float = 30.0) -> FeedEvent:
    return await asyncio.wait_for(anext(events), timeout_s)


async def test_a_reader_of_events_goes_on_where_it_stopped_after_a_restart_too(topics: Topics) -> None:
    topics.tag("before", place(1.0))
    async with topics.feed() as feed:
        async with aclosing(feed.events()) as events:
            first = asyncio.create_task(next_of(events))
            await eventually(lambda: feed.state().subscribers == 1)
            topics.tag("t1", place(0.5))
            topics.flush()
            event = await first
            assert (event.kind, event.id, event.status, event.genre) == ("track", "t1", "tagged", "jazz")
            assert event.release == RELEASE
            assert abs(event.at - now_ms()) < 60_000
        assert feed.state().subscribers == 0
        for number in range(6):
            topics.tag(f"missed {number}", place(0.4))
        topics.embed("fan", place(0.5))
        topics.embed("forgotten", place(0.5))
        topics.flush()
        async with aclosing(feed.events(after=event.event_id)) as events:
            seen = [await next_of(events) for _ in range(4)]
    missed = {f"missed {number}" for number in range(6)}
    assert {one.kind for one in seen} == {"track"}
    assert len({one.id for one in seen}) == 4
    topics.take_back(TRACKS_TAGGED, "before")
    topics.forget("user", "forgotten")
    async with topics.feed() as feed:  # as another process would read
        async with aclosing(feed.events(after=seen[-1].event_id)) as events:
            rest = [await next_of(events) for _ in range(3)]
        assert {one.id for one in seen + rest} == missed | {"before"}
        assert [one.id for one in rest if one.kind == "track_removed"] == ["before"]
        kinds = {"track", "track_removed", "user", "user_removed"}
        async with aclosing(feed.events(after="t0-u0", kinds=kinds)) as events:
            everything = [await next_of(events) for _ in range(10)]
            assert {one.id for one in everything} == missed | {"before", "t1", "fan"}
            waiting = asyncio.create_task(next_of(events))
            await topics.make_live(LATER_RELEASE)
            switched = await waiting
            assert (switched.kind, switched.release) == ("release", LATER_RELEASE)
        with pytest.raises(ValueError, match="no event id"):
            feed.events(after="t1;u2")
        async with aclosing(feed.events(after="t999999.999999.999999")) as events:
            assert (await next_of(events)).kind == "missed"


async def test_200_readers_at_once_get_every_event_and_leave_nothing_behind(topics: Topics) -> None:
    async def read(feed: Feed, count: int) -> list[str]:
        async with aclosing(feed.events()) as events:
            return [(await next_of(events)).id for _ in range(count)]

    async def all_read(feed: Feed, turn: int) -> None:
        readers = [asyncio.create_task(read(feed, 40)) for _ in range(200)]
        await eventually(lambda: feed.state().subscribers == 200)
        sent = [f"{turn}-{number}" for number in range(40)]
        for name in sent:
            topics.tag(name, place(0.5))
        topics.flush()
        assert {tuple(sorted(got)) for got in await asyncio.gather(*readers)} == {tuple(sorted(sent))}
        await eventually(lambda: feed.state().subscribers == 0)

    def held() -> int:
        gc.collect()
        # type(), since isinstance() looks into weak proxies, whose objects may be gone
        return sum(issubclass(type(one), (AsyncGeneratorType, asyncio.Task, Places)) for one in gc.get_objects())

    async with topics.feed() as feed:
        await all_read(feed, 1)
        before = held()
        await all_read(feed, 2)
        await eventually(lambda: held() <= before)


async def test_a_reader_that_is_too_slow_is_told_what_it_missed(topics: Topics, monkeypatch) -> None:
    monkeypatch.setattr(reading, "KEPT_EVENTS", 5)
    async with topics.feed() as feed, aclosing(feed.events()) as events:
        first = asyncio.create_task(next_of(events))
        await eventually(lambda: feed.state().subscribers == 1)
        topics.tag("first", place(0.5))
        topics.flush()
        seen = await first
        for number in range(20):
            topics.tag(f"t{number}", place(0.5))
        topics.flush()
        await eventually(lambda: feed.state().tracks == 21)
        assert (await next_of(events)).kind == "missed"
        rest = {(await next_of(events)).id for _ in range(5)}
        assert len(rest) == 5
        assert rest <= {f"t{number}" for number in range(20)}
        async with aclosing(feed.events(after=seen.event_id)) as late:
            assert (await next_of(late)).kind == "missed"
            assert {(await next_of(late)).id for _ in range(5)} == rest


async def test_a_feed_whose_kafka_is_killed_goes_on_answering_and_reads_on_when_it_is_back(
    environment: dict[str, str], kafka: Kafka
) -> None:
    topics = Topics(settings_of(environment | {"TASTEWAVE_KAFKA_BROKERS": kafka.brokers}))
    await topics.make_live(RELEASE)
    topics.tag("mine", place(1.0))
    topics.tag("near", place(0.9))
    async with topics.feed() as feed, aclosing(feed.events()) as events:
        waiting = asyncio.create_task(next_of(events, timeout_s=90))
        await asyncio.to_thread(kafka.kill)
        problem = await eventually(lambda: feed.state().problem)
        assert problem.startswith(f"Kafka at {kafka.brokers} does not answer")
        assert await ids(feed.taste.similar("mine", k=5)) == ["near"]
        assert feed.state().caught_up
        await asyncio.to_thread(kafka.restart)
        topics.tag("new", place(0.95))
        await asyncio.to_thread(topics.flush)
        assert (await waiting).id == "new"
        await eventually(lambda: feed.state().problem is None)
        assert await ids(feed.taste.similar("mine", k=5)) == ["new", "near"]
    await topics.close()


async def test_a_feed_says_what_it_waits_for(environment: dict[str, str]) -> None:
    settings = settings_of(environment)
    topics = Topics(settings_of(environment | {"TASTEWAVE_TOPIC_PREFIX": "elsewhere."}))
    async with Feed(settings, redis=topics.redis) as feed:
        await eventually(lambda: "no release is live" in (feed.state().problem or ""))
        with pytest.raises(NotCaughtUp, match="no release is live"):
            _ = feed.taste
        await topics.make_live(RELEASE)
        await eventually(lambda: "tastewave topics create" in (feed.state().problem or ""))
        there = Topics(settings)
        await eventually(lambda: feed.state().caught_up)
        assert feed.state().problem is None
        assert await feed.taste.tracks_for(place(1.0), k=5) == []
        await there.close()
    await topics.close()
