"""Taggrams over HTTP, and why a track is tagged or abstained."""

import msgspec
import numpy as np
import pytest

from models.contract import decode_taggram, encode_taggram, taggram_key
from models.events import TrackTagged
from models.musicnn import TAGS
from models.release import load_release
from tests.stream.serve.conftest import RELEASE

FACTS = {"event_time": 1, "event_id": "e1", "tagged_at": 2}
HEARD = np.linspace(0.0, 1.0, 30 * 50, dtype=np.float32).reshape(30, 50)


def abstained(track_id: str, *genres: tuple[str, float], release: str, **given) -> TrackTagged:
    return TrackTagged(
        track_id=track_id, release=release, status="abstained", confidence=genres[0][1], genres=genres, **FACTS | given
    )


@pytest.fixture
def no_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process cannot read the live release."""
    monkeypatch.setenv("TASTEWAVE_RELEASE", "/nowhere")


async def test_a_taggram_is_told_with_the_moments_and_tags_of_its_release(api, held):
    release = load_release().release_id
    held.activate(release)
    held.put(abstained("t/1", ("jazz", 0.1), release=release, duration_ms=180_000))
    held.client.set(taggram_key(release, "t/1"), encode_taggram(HEARD))
    client = api()
    told = (await client.get("/v1/tracks/t%2F1/taggram")).json()
    assert (told["release"], told["track_id"], told["tags"]) == (release, "t/1", list(TAGS["msd"]))
    assert told["values"] == np.rint(HEARD * 255).astype(int).tolist()
    assert [told["starts_ms"][patch] for patch in (0, 1, 10, 29)] == [15_000, 17_992, 75_000, 161_928]

    raw = await client.get("/v1/tracks/t%2F1/taggram", headers={"Accept": "application/octet-stream"})
    assert decode_taggram(raw.content) == pytest.approx(HEARD, abs=0.002)
    packed = await client.get("/v1/tracks/t%2F1/taggram", headers={"Accept": "application/msgpack"})
    assert msgspec.msgpack.decode(packed.content) == told
    assert (await client.get("/v1/tracks/t%2F1/taggram", headers={"Accept": "image/png"})).status_code == 406

    held.put(abstained("t/1", ("jazz", 0.1), release=release, duration_ms=70_000))  # two windows, of 10 patches each
    assert "starts_ms" not in (await client.get("/v1/tracks/t%2F1/taggram")).json()


async def test_a_taggram_that_is_not_kept_is_a_problem_that_names_the_setting(no_release, api, held):
    held.put(abstained("t1", ("jazz", 0.1), release=RELEASE))
    held.client.set(taggram_key("another12345", "t1"), encode_taggram(HEARD))
    client = api()
    missing = await client.get("/v1/tracks/t1/taggram")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:tastewave:problem:no-taggram")
    assert "TASTEWAVE_STORE_TAGGRAM" in missing.json()["detail"]
    assert (await client.get("/v1/tracks/t9/taggram")).json()["type"] == "urn:tastewave:problem:unknown-track"
    held.client.set(taggram_key(RELEASE, "t1"), b"something else")
    assert (await client.get("/v1/tracks/t1/taggram")).json()["type"] == "urn:tastewave:problem:foreign-value"
    held.client.set(taggram_key(RELEASE, "t1"), encode_taggram(HEARD))
    told = (await client.get("/v1/tracks/t1/taggram")).json()
    assert set(told) == {"release", "track_id", "values"}


async def test_an_explanation_says_what_kept_a_track_from_being_tagged(api, held):
    release = load_release().release_id
    held.activate(release)
    for track in (
        abstained("tags", ("electronic", 0.9), release=release, genres_from="tags"),
        abstained("unsure", ("jazz", 0.17), ("blues", 0.16), release=release),
        abstained("strange", ("jazz", 0.9), ("blues", 0.1), release=release),
    ):
        held.put(track)
    tagged = {"track_id": "sure", "release": release, "status": "tagged", "genre": "jazz", "genres": (("jazz", 0.9),)}
    held.put(TrackTagged(**tagged, **FACTS))
    held.client.set(taggram_key(release, "sure"), encode_taggram(HEARD))
    client = api()
    told = {
        one: (await client.get(f"/v1/tracks/{one}/explanation")).json() for one in ("tags", "unsure", "strange", "sure")
    }
    because = {one: document.get("abstained_because") for one, document in told.items()}
    assert because == {"tags": "tags", "unsure": "confidence", "strange": "training_tracks", "sure": None}
    head = load_release().genre_head()
    assert told["sure"]["thresholds"] == dict.fromkeys(head.classes, head.min_confidence)
    assert [(one["has_taggram"], one["has_audio"]) for one in told.values()] == [(False, False)] * 3 + [(True, False)]


async def test_where_the_release_cannot_be_read_no_threshold_is_told(no_release, api, held):
    held.put(abstained("t1", ("jazz", 0.1), release=RELEASE))
    held.put(abstained("t2", ("electronic", 0.1), release=RELEASE, genres_from="tags"))
    client = api()
    told = (await client.get("/v1/tracks/t1/explanation")).json()
    assert told == {"release": RELEASE, "track_id": "t1", "has_taggram": False, "has_audio": False}
    assert (await client.get("/v1/tracks/t2/explanation")).json()["abstained_because"] == "tags"
    assert (await client.get("/v1/tracks/t9/explanation")).json()["type"] == "urn:tastewave:problem:unknown-track"
