import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models import contract
from models.contract import decode_taggram, encode_taggram, taggram_key, track_answer, track_fields, track_key
from models.events import TrackTagged

times = st.integers(0, 253_402_300_799_999)
ranked = st.lists(st.tuples(st.text(), st.floats(0, 1)), max_size=5).map(tuple)
answers = st.builds(
    TrackTagged,
    track_id=st.text(min_size=1, max_size=64),
    release=st.text("0123456789abcdef", min_size=12, max_size=12),
    status=st.sampled_from(["tagged", "abstained", "failed"]),
    event_time=times,
    event_id=st.text(max_size=64),
    tagged_at=times,
    genre=st.none() | st.text(),
    confidence=st.none() | st.floats(0, 1),
    genres=ranked,
    genres_from=st.sampled_from([None, "tags"]),
    tags=ranked,
    embedding=st.none() | st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40).map(tuple),
    content_hash=st.none() | st.text(),
    duration_ms=st.none() | st.integers(0, 2**53),
    reason=st.none() | st.text(),
    title=st.none() | st.text(),
    artist_id=st.none() | st.text(),
)
ANSWER = TrackTagged(
    track_id="t1",
    release="0123456789ab",
    status="tagged",
    event_time=1_700_000_000_000,
    event_id="e1",
    tagged_at=1_700_000_000_345,
    genre="jazz",
    confidence=0.75,
    genres=(("jazz", 0.75), ("blues", 0.125)),
    tags=(("sax", 0.5),),
    embedding=(0.6, -0.8),
    content_hash="ab" * 32,
    duration_ms=215_000,
)


def test_topics_and_keys_are_those_of_contract_1() -> None:
    assert contract.CONTRACT == 1
    assert contract.TRACKS_UPLOADED == "tastewave.tracks.uploaded"
    assert contract.LISTENS == "tastewave.listens"
    assert contract.TRACKS_TAGGED == "tastewave.tracks.tagged"
    assert contract.USERS_EMBEDDED == "tastewave.users.embedded"
    assert contract.TRACKS_FEATURES == "tastewave.tracks.features"
    assert contract.DEAD_LETTER == "tastewave.dead-letter"
    assert contract.LIVE_KEY == "tw:live"
    assert track_key("0123456789ab", "t1") == "tw:0123456789ab:track:{t1}"
    assert taggram_key("0123456789ab", "t1") == "tw:0123456789ab:taggram:{t1}"


def test_every_key_takes_a_prefix() -> None:
    keys = {name: value for name, value in vars(contract).items() if name.endswith("_key")}
    assert len(keys) == 14
    for name, key in keys.items():
        given = ["0123456789ab", "t1"][: len(inspect.signature(key).parameters) - 1]
        default, other = key(*given), key(*given, prefix="eu:music")
        assert default.startswith("tw:"), name
        assert other == "eu:music" + default.removeprefix("tw"), name


def test_the_fields_of_a_track_are_those_of_contract_1() -> None:
    assert track_fields(ANSWER) == {
        "status": b"tagged",
        "genre": b"jazz",
        "confidence": b"0.75",
        "genres": b'[["jazz",0.75],["blues",0.125]]',
        "tags": b'[["sax",0.5]]',
        "embedding": bytes.fromhex("9a99193f cdcc4cbf"),  # float32 little-endian
        "content_hash": b"ab" * 32,
        "duration_ms": b"215000",
        "event_time": b"1700000000000",
        "event_id": b"e1",
        "tagged_at": b"1700000000345",
    }


def test_an_absent_value_has_no_field() -> None:
    failed = TrackTagged(
        track_id="t1",
        release="0123456789ab",
        status="failed",
        event_time=1,
        event_id="e1",
        tagged_at=2,
        reason="not_audio",
    )
    assert set(track_fields(failed)) == {"status", "reason", "event_time", "event_id", "tagged_at", "genres", "tags"}


@given(answers)
def test_an_answer_comes_back_from_its_fields(answer: TrackTagged) -> None:
    fields = {name.encode(): value for name, value in track_fields(answer).items()}
    assert track_answer(answer.track_id, answer.release, fields) == answer


def test_an_answer_of_an_earlier_version_has_an_empty_event_id() -> None:
    fields = {name.encode(): value for name, value in track_fields(ANSWER).items() if name != "event_id"}
    assert track_answer("t1", "0123456789ab", fields).event_id == ""


def test_fields_of_a_newer_contract_are_ignored() -> None:
    fields = {name.encode(): value for name, value in track_fields(ANSWER).items()} | {b"mood": b"blue"}
    back = track_answer("t1", "0123456789ab", fields)
    assert back.genre == "jazz"
    assert back.embedding == pytest.approx((0.6, -0.8))


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 40), st.integers(0, 60)), elements=st.floats(0, 1, width=32)))
def test_a_taggram_comes_back_within_half_a_step(taggram: np.ndarray) -> None:
    back = decode_taggram(encode_taggram(taggram))
    assert back.shape == taggram.shape
    assert np.all(np.abs(back - taggram) <= 0.5 / 255 + 1e-6)


def test_a_taggram_has_a_header_of_8_bytes_and_one_byte_a_value() -> None:
    taggram = np.array([[0.0, 0.5, 1.0], [0.2, 2.0, -1.0]], np.float32)
    assert encode_taggram(taggram) == b"TWTG\x01\x03\x02\x00" + bytes([0, 128, 255, 51, 255, 0])


@pytest.mark.parametrize(
    "data",
    [b"", b"TWTG", b"TWTG\x01\x03\x02\x00", b"XXXX\x01\x01\x01\x00\x00", b"TWTG\x02\x01\x01\x00\x00", bytes(100)],
)
def test_other_bytes_are_no_taggram(data: bytes) -> None:
    with pytest.raises(ValueError, match="taggram"):
        decode_taggram(data)


@given(st.binary(max_size=50))
def test_bytes_of_a_taggram_are_refused_or_decoded(data: bytes) -> None:
    try:
        taggram = decode_taggram(data)
    except ValueError:
        return
    assert encode_taggram(taggram) == data
