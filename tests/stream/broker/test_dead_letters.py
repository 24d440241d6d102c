from dataclasses import dataclass, field

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from stream.broker.dead_letters import dead_letter, read_dead_letter


@dataclass
class Record:
    key: bytes | None = b"t1"
    value: bytes | None = b'{"track_id": "t1"}'
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    topic: str = "tastewave.tracks.uploaded"
    partition: int = 3
    offset: int = 1234
    timestamp: int = 99


def letter(record: Record, **changed: object):
    given = {"reason": "not_audio", "message": "no decoder reads it", "attempts": 2, "release": "0123456789ab"}
    return dead_letter(record, **given | {"max_bytes": 1_048_576, "now_ms": 1_700_000_000_000} | changed)


def read(key: bytes | None, value: bytes | None, headers: list):
    return read_dead_letter(Record(key, value, headers, topic="tastewave.dead-letter"))


def test_a_dead_letter_has_the_original_bytes_and_the_headers_of_the_contract() -> None:
    key, value, headers = letter(Record())
    assert (key, value) == (b"t1", b'{"track_id": "t1"}')
    assert headers == [
        ("tastewave.source.topic", b"tastewave.tracks.uploaded"),
        ("tastewave.source.partition", b"3"),
        ("tastewave.source.offset", b"1234"),
        ("tastewave.reason", b"not_audio"),
        ("tastewave.message", b"no decoder reads it"),
        ("tastewave.attempts", b"2"),
        ("tastewave.release", b"0123456789ab"),
        ("tastewave.time", b"1700000000000"),
        ("tastewave.truncated", b"false"),
    ]


# Also such as ours have now, and such as ours had before.
names = st.text(max_size=20) | st.sampled_from(["reason", "message", "truncated", "tastewave.reason", "tastewave.time"])
header_lists = st.lists(st.tuples(names, st.none() | st.binary(max_size=20) | st.just(b"true")), max_size=6)


@given(
    st.none() | st.binary(max_size=50),
    st.none() | st.binary(max_size=50),
    header_lists,
    st.text(max_size=400),
    st.integers(1, 1000),
)
def test_a_dead_letter_is_read_back_as_it_was_written(
    key: bytes | None, value: bytes | None, headers: list, message: str, attempts: int
) -> None:
    written = letter(Record(key, value, headers), message=message, attempts=attempts)
    assert written[2][: len(headers)] == headers
    back = read(*written)
    assert back.headers == tuple(headers)
    assert (back.key, back.value, back.message, back.attempts) == (key, value, message, attempts)
    assert (back.source_topic, back.source_partition, back.source_offset) == ("tastewave.tracks.uploaded", 3, 1234)
    assert (back.reason, back.release, back.time) == ("not_audio", "0123456789ab", 1_700_000_000_000)
    assert not back.truncated


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", None), (None, b""), (b"", b""), (b"t1", None)])
def test_tombstones_and_records_without_a_key_survive(key: bytes | None, value: bytes | None) -> None:
    assert letter(Record(key, value))[:2] == (key, value)


@pytest.mark.parametrize("key", [None, b"t1", b"k" * 4096, b"k" * 500_000])
@pytest.mark.parametrize("message", ["short", "ä" * 100_000])
@pytest.mark.parametrize("max_bytes", [20_000, 1_048_576])
def test_what_is_too_large_is_cut_so_that_the_topic_takes_it(key: bytes | None, message: str, max_bytes: int) -> None:
    original = bytes(range(256)) * 8192
    key, value, headers = letter(Record(key, original, topic="t" * 249), message=message, max_bytes=max_bytes)
    assert original.startswith(value)
    assert ("tastewave.truncated", b"true") in headers
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, max_bytes)
    assert batch.append(0, 1_700_000_000_000, key, value, headers) is not None
    size = len(batch.build())
    assert max_bytes - 1100 < size <= max_bytes
    assert read(key, value, headers).truncated


def test_headers_and_value_that_are_too_large_together_are_each_kept_in_part() -> None:
    many = [(f"h{number}", b"x" * 100) for number in range(1000)]
    few = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c"), ("none", None)]
    value = b"v" * 100_000
    for theirs, least_value in ((many, 9_000), (few, 18_000)):
        _, kept, headers = letter(Record(value=value, headers=theirs), max_bytes=20_000)
        back = read(b"k", kept, headers)
        assert back.truncated
        assert value.startswith(kept)
        assert len(kept) > least_value
        assert list(back.headers) == theirs[: len(back.headers)]
        assert len(back.headers) == (2 if theirs is few else pytest.approx(82, abs=5))
        batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 20_000)
        assert batch.append(0, 1_700_000_000_000, b"k", kept, headers) is not None
    _, kept, headers = letter(Record(value=b"short", headers=many), max_bytes=20_000)
    assert kept == b"short"
    assert len(read(b"k", kept, headers).headers) > 150


def test_a_letter_of_an_earlier_version_is_read_by_the_names_that_its_headers_had() -> None:
    place = [("source_topic", b"t"), ("source_partition", b"3"), ("source_offset", b"1234"), ("time", b"17")]
    why = [("reason", b"not_audio"), ("message", b"m"), ("attempts", b"2"), ("release", b"r"), ("truncated", b"true")]
    back = read(b"k", b"v", place + why)
    assert (back.source_topic, back.source_partition, back.source_offset) == ("t", 3, 1234)
    assert (back.reason, back.message, back.attempts, back.release, back.time) == ("not_audio", "m", 2, "r", 17)
    assert back.truncated
    assert back.headers == ()


def test_a_header_of_the_source_is_never_taken_for_ours() -> None:
    theirs = [("reason", b"their own"), ("tastewave.truncated", b"true"), ("tastewave.reason", b"of an earlier letter")]
    back = read(*letter(Record(headers=theirs)))
    assert (back.reason, back.truncated, back.headers) == ("not_audio", False, tuple(theirs))


def test_a_value_that_just_fits_is_not_cut() -> None:
    original = b"x" * 18_000
    _, value, headers = letter(Record(value=original), max_bytes=20_000)
    assert value == original
    assert dict(headers)["tastewave.truncated"] == b"false"


def test_a_long_message_is_cut_between_characters() -> None:
    message = dict(letter(Record(), message="€" * 1000)[2])["tastewave.message"]
    assert len(message) <= 2000
    assert message.decode() == "€" * (len(message) // 3 - 1) + "..."


def test_a_message_that_is_no_unicode_is_written_all_the_same() -> None:
    assert dict(letter(Record(), message="a\udc80b")[2])["tastewave.message"] == b"a?b"


def test_a_foreign_record_on_the_topic_is_read_with_what_it_has() -> None:
    back = read(b"k", b"v", [("reason", b"\xff"), ("attempts", b"many"), ("other", b""), ("message", None)])
    assert (back.reason, back.attempts, back.source_offset, back.message, back.time) == ("�", -1, -1, "", 99)
