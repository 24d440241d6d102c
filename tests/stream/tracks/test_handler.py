"""What the agent for uploads does with what Redis holds; the parts around it are small stand-ins."""

from collections.abc import Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from types import SimpleNamespace

import msgspec
import pytest

from models.errors import NotFound
from models.events import TrackTagged, TrackUploaded, WindowFeatures, encode_event
from models.tagging import Tagging
from stream import metrics
from stream.audio.intake import Fetched
from stream.store.tracks import PublishedFeatures
from stream.tracks.handler import TrackHandler

UPLOADED_AT = 1_750_000_000_000
NETWORKS, ENCODERS = {"msd": "0123456789ab"}, ("cdef01234567",)
TAGGING = Tagging(
    status="tagged",
    genre="jazz",
    confidence=0.9,
    genres=(("jazz", 0.9),),
    tags=(("jazz", 0.5),),
    taggram=b"",
    windows={"msd": (WindowFeatures(start_ms=0, max_pool=b"", taggram_mean=b"", taggram_spread=b""),)},
    vectors={"cdef01234567": (b"vector",)},
    duration_s=30.0,
    lost_s=0.0,
    timings_ms={},
)


PLACES = {"t": (0.6, 0.8)}


class Servers:
    """Redis, Kafka, the web and the pool, in memory; notes in `did` what was asked of them, in order."""

    def __init__(self, held: TrackTagged | None = None, published: PublishedFeatures | None = None) -> None:
        self.held, self.published = held, published
        self.did: list[str] = []
        self.audio_is_there = True
        self.marked_at = 0

    async def get(self, track_id: str) -> TrackTagged | None:
        return self.held

    async def published_features(self, track_id: str) -> PublishedFeatures | None:
        return self.published

    async def put(self, answer: TrackTagged, *, taggram: bytes = b"") -> TrackTagged:
        self.did.append(f"put {answer.status}")
        if self.held is None or (self.held.event_time, self.held.event_id) < (answer.event_time, answer.event_id):
            self.held = answer
        return self.held

    @asynccontextmanager
    async def features_lock(self, track_id: str):
        yield

    async def mark_features(self, track_id: str, published: PublishedFeatures) -> None:
        self.did.append("mark features")
        self.published = published

    async def unmark_features(self, track_id: str) -> None:
        self.published = None

    async def tagged(self, answer: TrackTagged) -> None:
        self.did.append(f"publish answer of {answer.event_time - UPLOADED_AT}")

    async def features(self, features) -> None:
        self.features_ = features
        self.did.append("publish features")

    async def dead_letter(self, record, error, *, attempts: int = 1) -> None:
        self.did.append(f"dead letter {error.reason}")

    async def fetch(self, uri: str) -> Fetched:
        if not self.audio_is_there:
            raise NotFound("gone")
        return Fetched(BytesIO(), size_bytes=0, content_hash="abc")

    async def forgotten_at(self, track_id: str) -> int:
        return self.marked_at

    async def drop(self, track_id: str, forgotten_at: int) -> None:
        self.did.append("drop")
        if self.held and self.held.event_time <= forgotten_at:
            self.held = None

    async def take_back(self, track_id: str, *, features: bool) -> None:
        self.did.append("take back answer" + " and features" * features)

    async def tag(self, file, *, track_id: str, artist_id: str | None) -> Tagging:
        self.did.append("hear")
        self.artist_id = artist_id
        return msgspec.structs.replace(TAGGING, embedding=PLACES.get(track_id))


@asynccontextmanager
async def turn(record):
    yield


async def handled(servers: Servers, *, artist_id: str | None = None) -> list[str]:
    handler = TrackHandler(
        release="r", front_end="front-1", networks=NETWORKS, encoders=ENCODERS, fetcher=servers, pool=servers,
        store=servers,
        publisher=servers, turn=turn, top_k=5, future_tolerance_ms=1000,
        now_ms=lambda: UPLOADED_AT + 10,
    )  # fmt: skip
    event = TrackUploaded(event_id="e", track_id="t", uri="file:///t.mp3", uploaded_at=UPLOADED_AT, artist_id=artist_id)
    await handler.handle(SimpleNamespace(value=encode_event(event), key=b"t"))
    return servers.did


def answer(*, later_ms: int = 0, event_id: str = "e") -> TrackTagged:
    time = UPLOADED_AT + later_ms
    return TrackTagged(
        track_id="t", release="r", status="tagged", event_time=time, event_id=event_id, tagged_at=time + 5, genre="rock"
    )


def mark(
    later_ms: int, content: str, networks: Mapping[str, str] = NETWORKS, encoders: tuple[str, ...] = ENCODERS
) -> PublishedFeatures:
    time = UPLOADED_AT + later_ms
    return PublishedFeatures(event_time=time, event_id="e", content=content, networks=networks, encoders=encoders)


async def test_a_new_upload_is_heard_answered_and_its_features_are_published() -> None:
    servers = Servers()
    did = await handled(servers)
    assert did == ["hear", "put tagged", "publish answer of 0", "publish features", "mark features"]
    assert servers.held
    assert (servers.held.content_hash, servers.held.duration_ms) == ("abc", 30_000)


async def test_the_features_of_an_upload_are_published_once_and_say_whose_they_are() -> None:
    servers = Servers(published=mark(-1000, "front-1:abc"))  # of an earlier upload of the same audio
    did = await handled(servers, artist_id="artist-7")
    assert did == ["hear", "put tagged", "publish answer of 0", "publish features", "mark features"]
    assert servers.published == mark(0, "front-1:abc")
    told = servers.features_
    assert (told.event_time, told.event_id, told.artist_id) == (UPLOADED_AT, "e", "artist-7")
    assert told.vectors == {"cdef01234567": (b"vector",)}
    again = Servers(published=mark(0, "front-1:abc"))  # whose answer is gone
    assert await handled(again) == ["hear", "put tagged", "publish answer of 0"]


async def test_an_answer_that_a_killed_worker_left_without_its_features_is_heard_again() -> None:
    without = mark(0, "front-1:abc", encoders=())
    for left in (None, mark(-1, "front-1:older"), mark(0, "front-1:other", {"mtt": "ba9876543210"}), without):
        did = await handled(Servers(answer(), left))
        assert did == ["hear", "put tagged", "publish answer of 0", "publish features", "mark features"]


@pytest.mark.parametrize("later_ms", [0, 1], ids=["of this upload", "of a later upload"])
async def test_an_answered_upload_with_its_features_is_only_published_again(later_ms: int) -> None:
    servers = Servers(answer(), mark(later_ms, "front-1:abc"))
    servers.audio_is_there = False
    assert await handled(servers) == ["publish answer of 0"]


async def test_of_two_uploads_of_one_time_the_one_with_the_greater_id_stands() -> None:
    assert await handled(Servers(answer(event_id="f"))) == ["publish answer of 0"]
    assert (await handled(Servers(answer(event_id="d"), mark(0, "front-1:abc"))))[:2] == ["hear", "put tagged"]


async def test_the_pool_is_told_the_artist_that_an_upload_names() -> None:
    servers = Servers()
    await handled(servers, artist_id="artist-7")
    assert servers.artist_id == "artist-7"


async def test_features_of_a_later_upload_that_another_release_published_are_left() -> None:
    servers = Servers(published=mark(5, "front-1:newer"))
    assert await handled(servers) == ["hear", "put tagged", "publish answer of 0"]


async def test_a_release_that_runs_another_network_publishes_the_features_of_the_same_audio() -> None:
    servers = Servers(published=mark(0, "front-1:abc", {"mtt": "ba9876543210"}))
    assert "publish features" in await handled(servers)


async def test_the_answer_to_a_later_upload_stands_and_its_features_do() -> None:
    assert await handled(Servers(answer(later_ms=7))) == ["publish answer of 7"]

    class Overtaken(Servers):
        async def tag(self, file, **known) -> Tagging:
            self.held = answer(later_ms=7)
            return await super().tag(file, **known)

    assert await handled(Overtaken()) == ["hear", "put tagged", "publish answer of 7"]


async def test_an_answer_that_changes_while_it_is_published_is_published_again() -> None:
    class Racing(Servers):
        async def tagged(self, answer_: TrackTagged) -> None:
            await super().tagged(answer_)
            self.held = answer(later_ms=7)

    did = await handled(Racing())
    assert did[:4] == ["hear", "put tagged", "publish answer of 0", "publish answer of 7"]


async def test_audio_that_is_gone_is_a_failed_answer_and_a_dead_letter() -> None:
    servers = Servers()
    servers.audio_is_there = False
    assert await handled(servers) == ["put failed", "publish answer of 0", "dead letter not_found"]


async def test_an_upload_of_a_track_that_was_forgotten_since_is_not_heard() -> None:
    servers = Servers(answer())  # which a worker wrote that was killed then
    servers.marked_at = UPLOADED_AT
    assert await handled(servers) == ["drop", "take back answer and features"]
    assert servers.held is None


async def test_what_was_written_while_its_track_was_forgotten_is_taken_back() -> None:
    class Forgotten(Servers):
        async def tag(self, file, **known) -> Tagging:
            self.marked_at = UPLOADED_AT + 1
            return await super().tag(file, **known)

    servers = Forgotten()
    did = await handled(servers)
    assert did[:3] == ["hear", "put tagged", "publish answer of 0"]
    assert did[-2:] == ["drop", "take back answer and features"]
    assert servers.held is None
    late = Forgotten()
    late.audio_is_there = False
    late.marked_at = UPLOADED_AT - 1  # before this upload
    assert await handled(late) == ["put failed", "publish answer of 0", "dead letter not_found"]


async def test_an_answer_has_the_embedding_of_its_track() -> None:
    servers = Servers()
    await handled(servers)
    assert servers.held.embedding == (0.6, 0.8)


async def test_an_upload_later_than_the_time_up_to_which_its_track_is_forgotten_is_answered() -> None:
    servers = Servers()
    servers.marked_at = UPLOADED_AT - 1
    assert (await handled(servers))[:2] == ["hear", "put tagged"]
    of_another_release = Servers(published=mark(5, "front-1:newer"))
    of_another_release.marked_at = UPLOADED_AT
    assert await handled(of_another_release) == ["drop", "take back answer"]  # and not the features of a later upload
    answered = Servers(answer(later_ms=7), mark(7, "front-1:abc"))
    answered.marked_at = UPLOADED_AT
    assert await handled(answered) == ["drop", "publish answer of 7"]


async def test_an_answer_is_counted_by_its_genre_and_one_without_is_not() -> None:
    def counted() -> float:
        return (
            metrics.REGISTRY.get_sample_value("tastewave_tracks_tagged_total", {"release": "r", "genre": "jazz"}) or 0
        )

    before = counted()
    await handled(Servers())
    assert counted() == before + 1

    class Abstaining(Servers):
        async def tag(self, file, **known) -> Tagging:
            return msgspec.structs.replace(await super().tag(file, **known), status="abstained", genre=None)

    await handled(Abstaining())
    assert counted() == before + 1
