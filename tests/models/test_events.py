import functools
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deploy
from models.errors import EventError
from models.events import (
    JSON_EVENTS,
    Listen,
    TrackCorrected,
    TrackTagged,
    TrackUploaded,
    UserEmbedded,
    decode_event,
    encode_event,
)
from models.schemas import ASYNCAPI, json_schemas

SCHEMAS = Path(deploy.__file__).parent / "schemas"
ids = st.text(min_size=1, max_size=64)
YEAR_2000_MS = 946_684_800_000
times = st.integers(0, 253_402_300_799_999)
source_times = st.integers(YEAR_2000_MS, 253_402_300_799_999)
counts = st.integers(0, 2**53)
DAY_MS = 24 * 60 * 60 * 1000
probabilities = st.floats(0, 1)
ranked = st.lists(st.tuples(st.text(), probabilities), max_size=5).map(tuple)
vectors = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40).map(tuple)


def optional(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | values


events = st.one_of(
    st.builds(
        TrackUploaded,
        event_id=ids,
        track_id=ids,
        uri=st.text(min_size=1, max_size=100),
        uploaded_at=source_times,
        title=optional(st.text(max_size=100)),
        artist_id=optional(ids),
        duration_ms=optional(counts),
    ),
    st.builds(
        Listen,
        event_id=ids,
        user_id=ids,
        track_id=ids,
        kind=st.sampled_from(["play", "skip", "like", "unlike", "dislike", "undislike", "playlist_add"]),
        at=source_times,
        played_ms=st.integers(0, DAY_MS),
        duration_ms=st.integers(0, DAY_MS),
    ),
    st.builds(
        TrackTagged,
        track_id=ids,
        release=ids,
        status=st.sampled_from(["tagged", "abstained", "failed", "corrected"]),
        event_time=times,
        event_id=st.text(max_size=64),
        tagged_at=times,
        genre=optional(st.text()),
        confidence=optional(probabilities),
        genres=ranked,
        tags=ranked,
        embedding=optional(vectors),
        reason=optional(st.text()),
        title=optional(st.text()),
        artist_id=optional(st.text()),
        corrected_at=optional(times),
    ),
    st.builds(
        TrackCorrected,
        track_id=ids,
        genre=st.text(min_size=1, max_size=256),
        by=st.text(min_size=1, max_size=256),
        at=source_times,
    ),
    st.builds(
        UserEmbedded,
        user_id=ids,
        release=ids,
        embedding=vectors,
        source=st.sampled_from(["history", "global"]),
        listens=counts,
        event_time=times,
        revision=counts,
        refreshed_at=times,
    ),
)

UPLOADED = {"event_id": "e1", "track_id": "t1", "uri": "file:///srv/a.mp3", "uploaded_at": 1_700_000_000_000}
LISTEN = {"event_id": "e1", "user_id": "u1", "track_id": "t1", "kind": "like", "at": 1_700_000_000_000}
PLAY = LISTEN | {"kind": "play", "played_ms": 1000, "duration_ms": 200_000}
TAGGED = {
    "track_id": "t1",
    "release": "0123456789ab",
    "status": "tagged",
    "event_time": 1,
    "event_id": "e1",
    "tagged_at": 2,
}
EMBEDDED = {
    "user_id": "u1",
    "release": "0123456789ab",
    "embedding": [0.6, -0.8],
    "source": "history",
    "listens": 3,
    "event_time": 1,
    "revision": 1,
    "refreshed_at": 2,
}


def without(event: dict, *names: str) -> dict:
    return {name: value for name, value in event.items() if name not in names}


ACCEPTED = [
    ("tracks.uploaded", UPLOADED),
    ("tracks.uploaded", UPLOADED | {"title": "Song", "artist_id": "a1", "duration_ms": 0}),
    ("tracks.uploaded", UPLOADED | {"title": None, "from_the_future": {"x": [1]}}),
    ("tracks.uploaded", UPLOADED | {"track_id": "x" * 256}),
    ("tracks.uploaded", UPLOADED | {"uploaded_at": YEAR_2000_MS}),
    ("listens", LISTEN),
    ("listens", LISTEN | {"played_ms": 5}),
    ("listens", LISTEN | {"at": YEAR_2000_MS}),
    ("listens", PLAY),
    ("listens", PLAY | {"kind": "skip"}),
    ("tracks.tagged", TAGGED),
    ("tracks.tagged", TAGGED | {"genre": "jazz", "confidence": 0.5, "genres": [["jazz", 0.5]], "embedding": [1]}),
    ("tracks.tagged", TAGGED | {"genres": [["electronic", 0.5]], "genres_from": "tags"}),
    ("users.embedded", EMBEDDED),
]
REFUSED = [
    *(("tracks.uploaded", without(UPLOADED, name)) for name in UPLOADED),
    ("tracks.uploaded", UPLOADED | {"track_id": ""}),
    ("tracks.uploaded", UPLOADED | {"track_id": "x" * 257}),
    ("tracks.uploaded", UPLOADED | {"track_id": 7}),
    ("tracks.uploaded", UPLOADED | {"uri": ""}),
    ("tracks.uploaded", UPLOADED | {"uri": "x" * 8193}),
    ("tracks.uploaded", UPLOADED | {"uploaded_at": -1}),
    ("tracks.uploaded", UPLOADED | {"uploaded_at": 1_700_000_000}),
    ("tracks.uploaded", UPLOADED | {"uploaded_at": YEAR_2000_MS - 1}),
    ("tracks.uploaded", UPLOADED | {"uploaded_at": "1700000000000"}),
    ("tracks.uploaded", UPLOADED | {"uploaded_at": 1.5}),
    ("tracks.uploaded", UPLOADED | {"uploaded_at": 1_700_000_000_000_000_000}),
    ("tracks.uploaded", UPLOADED | {"title": 1}),
    ("tracks.uploaded", [UPLOADED]),
    ("tracks.uploaded", None),
    *(("listens", without(LISTEN, name)) for name in LISTEN),
    ("listens", LISTEN | {"kind": "Play"}),
    ("listens", LISTEN | {"at": 1_700_000_000}),
    ("listens", LISTEN | {"at": YEAR_2000_MS - 1}),
    ("listens", LISTEN | {"kind": "play"}),
    ("listens", without(PLAY, "played_ms")),
    ("listens", without(PLAY, "duration_ms") | {"kind": "skip"}),
    ("listens", PLAY | {"duration_ms": None}),
    ("listens", PLAY | {"played_ms": -1}),
    ("listens", PLAY | {"played_ms": DAY_MS + 1}),
    ("listens", PLAY | {"duration_ms": 210_000_000}),
    *(("tracks.tagged", without(TAGGED, name)) for name in TAGGED),
    ("tracks.tagged", TAGGED | {"status": "maybe"}),
    ("tracks.tagged", TAGGED | {"confidence": 1.5}),
    ("tracks.tagged", TAGGED | {"tags": [["rock"]]}),
    ("tracks.tagged", TAGGED | {"tags": [["rock", 0.5, 1]]}),
    *(("users.embedded", without(EMBEDDED, name)) for name in EMBEDDED),
    ("users.embedded", EMBEDDED | {"source": "friends"}),
]


@given(events)
def test_every_event_comes_back_as_it_was_and_fits_its_schema(event: msgspec.Struct) -> None:
    assert decode_event(encode_event(event), type(event)) == event
    topic = next(topic for topic, kind in JSON_EVENTS.items() if kind is type(event))
    validator(topic).validate(json.loads(encode_event(event)))


@pytest.mark.parametrize(("topic", "event"), ACCEPTED)
def test_struct_and_schema_accept_an_event(topic: str, event: object) -> None:
    decode_event(json.dumps(event).encode(), JSON_EVENTS[topic])
    validator(topic).validate(event)


@pytest.mark.parametrize(("topic", "event"), REFUSED)
def test_struct_and_schema_refuse_an_event(topic: str, event: object) -> None:
    with pytest.raises(EventError, match=JSON_EVENTS[topic].__name__):
        decode_event(json.dumps(event).encode(), JSON_EVENTS[topic])
    with pytest.raises(jsonschema.ValidationError):
        validator(topic).validate(event)


def test_the_schemas_in_the_repository_are_those_of_the_structs() -> None:
    assert {path.name: path.read_bytes() for path in SCHEMAS.glob("*.json") if path.name != ASYNCAPI} == json_schemas()
    assert len(json_schemas()) == 6


@functools.cache
def validator(topic: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{topic}.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_limit_of_an_id_is_in_bytes() -> None:
    decode_event(json.dumps(UPLOADED | {"track_id": "ä" * 128}).encode(), TrackUploaded)
    with pytest.raises(EventError, match="258 bytes"):
        decode_event(json.dumps(UPLOADED | {"track_id": "ä" * 129}).encode(), TrackUploaded)


def test_seconds_are_answered_with_the_unit_that_is_wanted() -> None:
    for event, kind, name in ((UPLOADED, TrackUploaded, "uploaded_at"), (LISTEN, Listen, "at")):
        said = f"{name} is 1700000000, which is before the year 2000 and looks like seconds: give milliseconds"
        with pytest.raises(EventError, match=said):
            decode_event(json.dumps(event | {name: 1_700_000_000}).encode(), kind)


@pytest.mark.parametrize("value", [None, b"", b" ", b"{", b"\xff\xfe", b"null", b"NaN", b'{"event_id":"\xed\xa0\x80"}'])
def test_bytes_that_are_no_json_object_are_refused(value: bytes | None) -> None:
    with pytest.raises(EventError):
        decode_event(value, TrackUploaded)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_an_event_error(value: bytes) -> None:
    with pytest.raises(EventError):
        decode_event(value, TrackUploaded)


def test_nesting_without_end_is_refused() -> None:
    for opening in (b"[", b'{"x":'):
        with pytest.raises(EventError):
            decode_event(opening * 100_000, TrackUploaded)


def test_absent_values_have_no_field() -> None:
    assert json.loads(encode_event(decode_event(json.dumps(TAGGED).encode(), TrackTagged))) == TAGGED
