"""Ten thousand malformed records with good uploads between them: each is a dead letter, and no upload waits."""

import gzip
import json
from collections import Counter
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from models.contract import DEAD_LETTER, TRACKS_UPLOADED
from models.errors import EventError
from models.events import TrackUploaded, decode_event
from stream.broker.dead_letters import DeadLetter, read_dead_letter
from tests.platform.malformed_events import FUTURE, MALFORMED, REFUSED, event, malformed_events
from tests.platform.music import write_music
from tests.platform.tracks import DELIVERY_TIMEOUT_S, Platform

pytestmark = pytest.mark.servers
COUNT = 10_000
NOTHING = b"stands for no value"
HEADERS = [("h\udc80".encode(errors="replace").decode(), b"\xff\0"), ("", b""), ("reason", b"theirs"),
           ("tastewave.reason", b"of an earlier letter"), ("tastewave.truncated", b"true")]  # fmt: skip
EVERY = 200  # malformed records to a good one


def test_the_known_answers_are_those_of_the_decoder() -> None:
    reasons: Counter[str] = Counter()
    for sent in malformed_events(COUNT, seed=4, huge_bytes=10_000):
        reasons[sent.reason] += 1
        if sent.reason == MALFORMED:
            with pytest.raises(EventError):
                decode_event(sent.value, TrackUploaded)
        else:
            decode_event(sent.value, TrackUploaded)
    assert min(reasons[reason] for reason in (MALFORMED, REFUSED, FUTURE)) > 500
    assert reasons.total() == COUNT


def letters(platform: Platform) -> dict[tuple[int, int], DeadLetter]:
    """The dead letters by source partition and offset. Asserts that no record has two."""
    found = [read_dead_letter(record) for record in platform.read(DEAD_LETTER)]
    by_source = {(letter.source_partition, letter.source_offset): letter for letter in found}
    assert len(by_source) == len(found)
    return by_source


def producer(platform: Platform, **options: Any) -> KafkaProducer:
    """A producer that sends what kafka-python's refuses: records of any size, and with neither key nor value."""
    return KafkaProducer(
        bootstrap_servers=list(platform.settings.kafka.brokers),
        acks="all",
        max_request_size=1 << 30,
        value_serializer=lambda value: None if value is NOTHING else value,
        **options,
    )


def test_ten_thousand_malformed_events_stop_no_worker_and_no_neighbour(platform: Platform) -> None:
    """Every partition has good tracks between the malformed records, and the worker runs from the first record on."""
    good = write_music(platform.folder / "good.wav", seconds=3.2).as_uri()
    worker = platform.start_worker()
    platform.until_ready()
    topic = platform.settings.topics.named(TRACKS_UPLOADED)
    sent, neighbours, with_headers = [], [], 0
    with producer(platform, linger_ms=20, batch_size=1 << 16) as sender:
        huge_bytes = platform.settings.topics.max_bytes - 200_000
        for number, one in enumerate(malformed_events(COUNT, seed=4, huge_bytes=huge_bytes)):
            headers = HEADERS if number % 7 == 0 else []
            sent.append(
                (
                    one,
                    sender.send(topic, key=one.key, value=NOTHING if one.value is None else one.value, headers=headers),
                )
            )
            if number % EVERY == EVERY // 2:
                neighbours.append(platform.upload(good))
        sender.flush(DELIVERY_TIMEOUT_S)
    places = {(place.partition, place.offset): one for one, delivery in sent for place in [delivery.get(0)]}
    for neighbour in neighbours:
        assert platform.wait_for(neighbour).status in ("tagged", "abstained")
    platform.settled(timeout_s=200)
    assert worker.poll() is None
    found = letters(platform)
    assert found.keys() == places.keys()
    for place, letter in found.items():
        one = places[place]
        with_headers += letter.headers == tuple(HEADERS)
        assert letter.headers in ((), tuple(HEADERS))
        assert (letter.reason, letter.source_topic) == (one.reason, topic), (one, letter)
        if letter.truncated:
            assert len(one.key or b"") > 4096  # the contract's limit of a key
        else:
            assert (letter.key, letter.value) == (one.key, b"" if one.key is one.value is None else one.value)
        assert letter.message
    assert with_headers == len(range(0, COUNT, 7))
    assert {partition for partition, _ in places} == {0, 1, 2}
    answers = platform.output()
    assert {event.track_id for event in neighbours} <= answers.keys()
    for said in ("Traceback", "record.", "exception"):
        assert said not in platform.worker_log()
    times = sorted(letter.time for letter in found.values())
    waits = sorted(answers[event.track_id].tagged_at - event.uploaded_at for event in neighbours)
    print(f"{COUNT / (times[-1] - times[0]) * 1000:.0f} dead letters/s; upload to cache of the {len(waits)} between: "
          f"p50 {waits[len(waits) // 2]} ms, max {waits[-1]} ms")  # fmt: skip


def test_a_dead_letter_larger_than_its_topic_takes_is_cut_and_flagged(platform: Platform) -> None:
    topic, limit = platform.settings.topics.named(TRACKS_UPLOADED), platform.settings.topics.max_bytes
    admin = KafkaAdminClient(bootstrap_servers=list(platform.settings.kafka.brokers))
    admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": str(8 * limit)})]
    )
    admin.close()
    whole = {
        b"fits": json.dumps(event(0, padding="x" * (limit - 3000))).encode(),
        b"fits, and is no event": b"[" + b" " * (limit - 3000),
    }
    cut = {
        **{f"{limit - less}".encode(): b"\xff" * (limit - less) for less in (200, 100, 70, 1, 0, -1, -3 * limit)},
        b"valid": json.dumps(event(1, padding="x" * 3 * limit)).encode(),
        b"k" * 100_000: b"{",
        b"K" * limit: b"{" * limit,
    }
    bomb = b"\xff" * (32 * limit)
    assert len(gzip.compress(bomb)) < limit
    platform.start_worker()
    with producer(platform) as sender, producer(platform, compression_type="gzip") as compressing:
        for key, value in (whole | cut).items():
            sender.send(topic, key=key, value=value).get(DELIVERY_TIMEOUT_S)
        compressing.send(topic, key=b"bomb", value=bomb).get(DELIVERY_TIMEOUT_S)
    good = platform.upload(write_music(platform.folder / "good.wav", seconds=3.2).as_uri())
    assert platform.wait_for(good).status in ("tagged", "abstained")
    platform.settled()
    found = {letter.key: letter for letter in letters(platform).values()}
    assert found.keys() == {key[:4096] for key in (*whole, *cut, b"bomb")}
    for key, value in whole.items():
        assert (found[key].value, found[key].truncated) == (value, False)
    for key, value in (cut | {b"bomb": bomb}).items():
        letter = found[key[:4096]]
        assert letter.truncated
        assert value.startswith(letter.value)
        assert len(letter.value) == len(value) or limit - 8192 < len(letter.value) < limit
        assert letter.reason == (REFUSED if key == b"valid" else MALFORMED)
    assert "Traceback" not in platform.worker_log()
