"""Corrections on real servers: an editor's genre stands above what any release says, whatever comes in which order."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import TRACKS_CORRECTED, TRACKS_TAGGED, track_fields, track_key
from models.events import TrackCorrected, TrackTagged, decode_event, encode_event
from stream.store.corrections import Corrections
from stream.store.forgotten import forget_track
from stream.store.many_tracks import ManyTracks
from stream.store.tracks import TrackStore
from stream.store.users import register_release
from tests.platform.clock import now_ms, until
from tests.platform.music import write_music
from tests.platform.tracks import Platform

pytestmark = pytest.mark.servers

RELEASES = ("0123456789ab", "ba9876543210")
YEAR_2020 = 1_577_836_800_000


def answer(release: str, status: Any, event_time: int) -> TrackTagged:
    good = {"genres": (("jazz", 0.75),), "confidence": 0.75} if status != "failed" else {"reason": "not_audio"}
    values: dict[str, Any] = good | ({"genre": "jazz"} if status == "tagged" else {})
    return TrackTagged(
        track_id="t1", release=release, status=status, event_time=event_time, event_id="e", tagged_at=9, **values
    )


def correction(genre: str, at: int, *, by: str = "ann", track_id: str = "t1") -> TrackCorrected:
    return TrackCorrected(track_id=track_id, genre=genre, by=by, at=YEAR_2020 + at)


class Topic:
    """The last value of each key, as compaction leaves it."""

    def __init__(self) -> None:
        self.last: dict[str, TrackTagged | None] = {}

    async def publish(self, release: str, track_id: str, held: TrackTagged | None) -> None:
        self.last[f"{release}:{track_id}"] = held


def test_answers_and_corrections_of_two_releases_in_any_order_end_the_same(environment: dict[str, str]) -> None:
    answers = st.builds(
        answer, st.sampled_from(RELEASES), st.sampled_from(["tagged", "abstained", "failed"]), st.integers(1, 3)
    )
    corrections = st.builds(correction, st.sampled_from(["rock", "röck", "a", "\x00", "\uffff"]), st.integers(1, 3))
    events = st.lists(answers | corrections, min_size=1, max_size=7, unique_by=encode_event)

    @settings(max_examples=40)
    @given(events=events, seed=st.integers(0, 2**16), at_once=st.booleans())
    def ends_the_same(events: list[Any], seed: int, *, at_once: bool) -> None:
        # Of two answers to one event the first stands, and which one that is depends on the order.
        events = list({getattr(one, "event_time", id(one)): one for one in events}.values())

        async def ending(order: Sequence[Any]) -> dict[str, TrackTagged]:
            async with redis.asyncio.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as client:
                await client.flushdb()
                for release in RELEASES:
                    await register_release(client, release)
                stores = {release: TrackStore(client, release) for release in RELEASES}
                writer, topic = Corrections(client), Topic()
                work = [
                    stores[one.release].put(one)
                    if isinstance(one, TrackTagged)
                    else writer.correct(one, publish=topic.publish)
                    for one in order
                ]
                if at_once:
                    await asyncio.gather(*work)
                else:
                    for each in work:
                        await each
                return {release: held for release, store in stores.items() if (held := await store.get("t1"))}

        held = asyncio.run(ending(events))
        assert held == asyncio.run(ending(random.Random(seed).sample(events, len(events))))
        said = [one for one in events if isinstance(one, TrackCorrected)]
        assert held.keys() == {one.release for one in events if isinstance(one, TrackTagged)}
        for release, one in held.items():
            of_release = [event for event in events if isinstance(event, TrackTagged) and event.release == release]
            stands = max(of_release, key=lambda event: (event.status != "failed", event.event_time))
            if said:
                last = max(said, key=lambda one: (one.at, one.genre.encode()))
                corrected = {"status": "corrected", "genre": last.genre, "corrected_at": last.at}
                stands = msgspec.structs.replace(stands, **corrected)
            assert one == stands

    ends_the_same()


async def test_a_new_release_a_rescoring_and_a_replay_keep_a_correction_until_the_track_is_forgotten(
    environment: dict[str, str],
) -> None:
    topic = Topic()
    async with redis.asyncio.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as client:
        writer = Corrections(client)
        await writer.correct(correction("techno", 5), publish=topic.publish)  # of a track that has no answer yet
        assert topic.last == {}
        await register_release(client, RELEASES[0])
        held = await TrackStore(client, RELEASES[0]).put(answer(RELEASES[0], "tagged", 1))
        assert (held.status, held.genre, held.genres) == ("corrected", "techno", (("jazz", 0.75),))
        assert await client.hgetall(track_key(RELEASES[0], "t1")) == {
            name.encode(): value for name, value in track_fields(held).items()
        }
        await register_release(client, RELEASES[1])
        (rescored,) = await ManyTracks(client, RELEASES[1]).put([answer(RELEASES[1], "abstained", 1)])
        assert (rescored.status, rescored.genre) == ("corrected", "techno")
        await writer.correct(correction("dub", 6), publish=topic.publish)
        await writer.correct(correction("techno", 5), publish=topic.publish)
        assert {key: (one and one.genre) for key, one in topic.last.items()} == {
            f"{release}:t1": "dub" for release in RELEASES
        }
        await forget_track(client, "t1", YEAR_2020 + 6, releases=RELEASES)
        await writer.correct(correction("dub", 6), publish=topic.publish)  # a replay of the topic
        assert await client.exists("tw:corrected:{t1}") == 0
        again = await TrackStore(client, RELEASES[0]).put(answer(RELEASES[0], "tagged", YEAR_2020 + 7))
        assert (again.status, again.genre, again.corrected_at) == ("tagged", "jazz", None)


def test_the_command_and_the_topic_correct_what_a_worker_answers(platform: Platform) -> None:
    audio = write_music(platform.folder / "a.wav").as_uri()
    platform.start_worker()
    first = platform.wait_for(platform.upload(audio, track_id="t1"))
    assert first.status in ("tagged", "abstained")
    assert "t1 is dub, says ann: in " + platform.release in platform.run("correct", "t1", "dub", "--by", "ann")
    (told,) = [decode_event(record.value, TrackCorrected) for record in platform.read(TRACKS_CORRECTED)]
    assert (told.track_id, told.genre, told.by) == ("t1", "dub", "ann")
    shown = json.loads(platform.run("get", "track", "t1", "--json"))
    assert (shown["status"], shown["genre"], shown["corrected_at"]) == ("corrected", "dub", told.at)
    assert "dub (an editor" in platform.run("get", "track", "t1")
    later = encode_event(TrackCorrected(track_id="t1", genre="ska", by="another system", at=now_ms()))
    topic = platform.settings.topics.named(TRACKS_CORRECTED)
    platform.producer.send(topic, key=b"t1", value=b"{}").get(30)
    platform.producer.send(topic, key=b"t1", value=later).get(30)
    until(lambda: (held := platform.held("t1")) and held.genre == "ska")
    again = platform.wait_for(platform.upload(audio, track_id="t1"))
    assert (again.status, again.genre, again.genres) == ("corrected", "ska", first.genres)
    until(lambda: platform.output() == {"t1": again})
    assert [letter["reason"] for letter in platform.dead_letters()] == ["malformed_event"]
    assert platform.read(TRACKS_TAGGED)
    platform.run("forget", "track", "t1", "--yes")
    assert platform.read(TRACKS_CORRECTED)[-1].value is None
    assert platform.redis.exists("tw:corrected:{t1}") == 0
    refused = platform.try_to_run("correct", "t1", "", "--by", "ann")
    assert (refused.returncode, "breaks the contract" in refused.stderr) == (1, True)
