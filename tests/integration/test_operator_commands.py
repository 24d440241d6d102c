"""The commands of operators on the real servers; a thread of the test stands for the worker."""

import dataclasses
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata, TopicPartition

from models.contract import (
    DEAD_LETTER,
    LISTENS,
    LIVE_KEY,
    TRACKS_TAGGED,
    TRACKS_UPLOADED,
    track_fields,
    track_key,
    user_key,
)
from models.events import Listen, TrackTagged, TrackUploaded, decode_event, encode_event
from models.release import load_release
from stream.broker.dead_letters import dead_letter
from stream.broker.operator import kafka_client, partitions_of, records_between
from stream.commands.dead_letters import latest_dead_letters
from stream.commands.release import ReleaseCoversTooLittle, activate_release
from stream.commands.topics import create_topics
from stream.settings import Settings, load_settings
from stream.store.client import async_client, sync_client
from stream.store.coverage import coverage
from tests.platform.commands import run_command

pytestmark = pytest.mark.servers

RELEASE = "0123456789ab"


class Shell:
    """Runs `tastewave` with the settings of one test."""

    def __init__(self, environment: dict[str, str]) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith("TASTEWAVE_")}
        self.environment = others | environment | {"TASTEWAVE_TOPIC_PARTITIONS": "3", "COLUMNS": "200"}

    def __call__(self, *arguments: str | Path, rc: int = 0, **settings: str) -> str:
        changed = {f"TASTEWAVE_{name.upper()}": value for name, value in settings.items()}
        done = run_command("tastewave", *arguments, environment=self.environment | changed)
        assert done.returncode == rc, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if rc:
            assert not done.stderr or done.stderr.strip().splitlines()[-1].startswith("Error: ")
        self.error = done.stderr
        return done.stdout

    def lines(self, *arguments: str | Path, rc: int = 0) -> list[dict]:
        return [json.loads(line) for line in self(*arguments, rc=rc).splitlines()]


@pytest.fixture
def tastewave(environment: dict[str, str]) -> Shell:
    return Shell(environment)


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings(
        kafka_brokers=environment["TASTEWAVE_KAFKA_BROKERS"],
        redis_url=environment["TASTEWAVE_REDIS_URL"],
        topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"],
        topic_partitions=3,
    )


@pytest.fixture
def producer(settings: Settings) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(**settings.kafka.client_arguments(), acks="all")
    yield producer
    producer.close()


# --- topics


def states(table: str) -> Counter[str]:
    return Counter(re.findall(r"(created|there|differs|missing) *$", table, re.MULTILINE))


def test_topics_are_created_once_and_drift_is_reported(tastewave: Shell, settings: Settings) -> None:
    assert states(tastewave("topics", "check", rc=1)) == {"missing": 8}
    assert states(tastewave("topics", "create")) == {"created": 8}
    assert states(tastewave("topics", "create")) == {"there": 8}
    assert states(tastewave("topics", "check")) == {"there": 8}
    with_admin(
        settings,
        lambda admin: (
            admin.delete_topics([settings.topics.named(TRACKS_TAGGED)]),
            admin.create_partitions({settings.topics.named(TRACKS_UPLOADED): 5}),
            admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, settings.topics.named(DEAD_LETTER), {"retention.ms": "1000"})]
            ),
        ),
    )
    deadline = time.monotonic() + 30  # the broker shows a change a moment after it took it
    while states(report := tastewave("topics", "check", rc=1)) != {"missing": 1, "differs": 2, "there": 5}:
        assert time.monotonic() < deadline, report
    assert f"{settings.topics.named(TRACKS_UPLOADED)}: partitions is 5, wanted 3" in report
    assert f"{settings.topics.named(DEAD_LETTER)}: retention.ms is 1000, wanted 2592000000" in report
    assert states(tastewave("topics", "create")) == {"created": 1, "differs": 2, "there": 5}


def with_admin(settings: Settings, work: Callable[[KafkaAdminClient], object]) -> None:
    admin = KafkaAdminClient(**settings.kafka.client_arguments())
    try:
        work(admin)
    finally:
        admin.close()


def test_topics_are_made_as_the_settings_say(tastewave: Shell, settings: Settings) -> None:
    tastewave("topics", "create", topic_partitions="2", topic_max_bytes="2000000", topic_retention_h="5")
    names = [settings.topics.named(name) for name in (TRACKS_UPLOADED, TRACKS_TAGGED)]
    admin = KafkaAdminClient(**settings.kafka.client_arguments())
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    topics = {topic["name"]: topic for topic in admin.describe_topics(names)}
    admin.close()
    uploaded, tagged = ({name: config["value"] for name, config in configs[topic].items()} for topic in names)
    assert (uploaded["cleanup.policy"], uploaded["retention.ms"]) == ("delete", "18000000")
    assert tagged["cleanup.policy"] == "compact"
    assert uploaded["max.message.bytes"] == tagged["max.message.bytes"] == "2000000"
    assert [len(topic["partitions"]) for topic in topics.values()] == [2, 2]


def test_more_replicas_than_brokers_is_one_sentence(tastewave: Shell) -> None:
    tastewave("topics", "create", rc=1, topic_replication="3")
    assert "replication factor of 3" in tastewave.error.replace("\n", " ")
    assert len(tastewave.error.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["topics check", "upload http://a.example/a.mp3"])
def test_a_kafka_that_is_away_is_one_sentence_within_seconds(tastewave: Shell, command: str) -> None:
    started = time.monotonic()
    tastewave(*command.split(), rc=1, kafka_brokers="127.0.0.1:1")
    assert time.monotonic() - started < 30
    assert "127.0.0.1:1" in tastewave.error
    assert len(tastewave.error.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["dead-letters", "upload http://a.example/a.mp3"])
def test_a_missing_topic_names_the_command_that_makes_it(tastewave: Shell, command: str) -> None:
    tastewave(*command.split(), rc=1)
    assert "tastewave topics create" in tastewave.error


# --- dead letters


def put_dead_letter(producer: KafkaProducer, settings: Settings, offset: int, *, partition: int, at: int) -> None:
    source = TrackUploaded(event_id="e", track_id=f"t{offset}", uri="file:///a", uploaded_at=1_700_000_000_000)
    record = consumed(settings, key=source.track_id.encode(), value=encode_event(source), offset=offset)
    key, value, headers = dead_letter(
        record,
        reason="not_found",
        message=f"[red]number {offset}[/red]",
        attempts=1,
        release=RELEASE,
        max_bytes=10_000,
        now_ms=at,
    )
    send(producer, settings, DEAD_LETTER, key, value, headers=headers, partition=partition)


def consumed(settings: Settings, *, key: bytes | None, value: bytes | None, offset: int = 0) -> object:
    from kafka.consumer.fetcher import ConsumerRecord

    return ConsumerRecord(
        settings.topics.named(TRACKS_UPLOADED), 0, None, offset, 0, 0, key, value, [], None, -1, -1, -1
    )


def send(
    producer: KafkaProducer, settings: Settings, topic: str, key: bytes | None, value: bytes | None, **options: object
) -> None:
    producer.send(settings.topics.named(topic), key=key, value=value, **options).get(30)


def test_the_latest_dead_letters_over_all_partitions_are_listed_by_time(
    tastewave: Shell, settings: Settings, producer: KafkaProducer
) -> None:
    create_topics(settings)
    assert "No dead letters" in tastewave("dead-letters")
    now_ms = time.time_ns() // 1_000_000
    for number in range(9):
        put_dead_letter(producer, settings, number, partition=number % 3, at=now_ms - 60_000 * (8 - number))
    listed = tastewave.lines("dead-letters", "--json")
    assert [letter["source_offset"] for letter in listed] == list(range(9))
    assert decode_event(listed[8]["value"].encode(), TrackUploaded).track_id == "t8"
    assert listed[8] | {"time": 0, "value": ""} == {
        "key": "t8",
        "value": "",
        "source_topic": settings.topics.named(TRACKS_UPLOADED),
        "source_partition": 0,
        "source_offset": 8,
        "reason": "not_found",
        "message": "[red]number 8[/red]",
        "attempts": 1,
        "release": RELEASE,
        "time": 0,
        "truncated": False,
        "headers": [],
    }
    table = tastewave("dead-letters", "--last", "2")
    assert "[red]number 7[/red]" in table
    assert "1 min" in table
    assert "number 6" not in table


def test_dead_letters_of_tombstones_and_of_strangers_are_listed(
    tastewave: Shell, settings: Settings, producer: KafkaProducer
) -> None:
    create_topics(settings)
    record = consumed(settings, key=b"\xff", value=None)
    key, value, headers = dead_letter(
        record, reason="malformed_event", message="empty", attempts=1, release=RELEASE, max_bytes=10_000
    )
    send(producer, settings, DEAD_LETTER, key, value, headers=headers)
    send(producer, settings, DEAD_LETTER, None, b"\x00stranger")
    first, second = tastewave.lines("dead-letters", "--json")
    assert (first["key"], first["value"], first["reason"]) == ("\\xff", None, "malformed_event")
    assert (second["key"], second["value"], second["reason"]) == (None, "\x00stranger", "")
    tastewave("dead-letters")


def test_a_dead_letter_of_the_largest_event_fits_its_topic(
    tastewave: Shell, settings: Settings, producer: KafkaProducer
) -> None:
    create_topics(settings)
    record = consumed(settings, key=b"k" * 100_000, value=os.urandom(2_000_000))
    key, value, headers = dead_letter(
        record,
        reason="malformed_event",
        message="x" * 5000,
        attempts=1,
        release=RELEASE,
        max_bytes=settings.topics.max_bytes,
    )
    send(producer, settings, DEAD_LETTER, key, value, headers=headers)
    (letter,) = latest_dead_letters(settings, last=5)
    assert letter.truncated
    assert record.value.startswith(letter.value)
    assert len(letter.value) > 1_000_000


# --- upload


class Worker(threading.Thread):
    """Answers uploads on the output topic, and those with "bad" in their URI as dead letters."""

    def __init__(self, settings: Settings, **changed: object) -> None:
        super().__init__(daemon=True)
        self.settings, self.changed, self.events, self.stopping = settings, changed, [], threading.Event()

    def run(self) -> None:
        producer = KafkaProducer(**self.settings.kafka.client_arguments(), acks="all")
        consumer = KafkaConsumer(**self.settings.kafka.client_arguments(), enable_auto_commit=False)
        topic = self.settings.topics.named(TRACKS_UPLOADED)
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        while not self.stopping.is_set():
            for records in consumer.poll(timeout_ms=100).values():
                for record in records:
                    self.answer(producer, record)
        consumer.close()
        producer.close()

    def answer(self, producer: KafkaProducer, record: object) -> None:
        event = decode_event(record.value, TrackUploaded)
        self.events.append((record.key, event))
        answer = TrackTagged(
            track_id=event.track_id,
            release=RELEASE,
            status="tagged",
            event_time=event.uploaded_at,
            event_id=event.event_id,
            tagged_at=event.uploaded_at + 321,
            genre="jazz",
            confidence=0.81,
            tags=(("sax", 0.9), ("slow", 0.5)),
        )
        bad = "bad" in event.uri
        if bad:
            failed = {"status": "failed", "genre": None, "confidence": None, "tags": (), "reason": "refused_uri"}
            answer = msgspec.structs.replace(answer, **failed)
        answer = msgspec.structs.replace(answer, **self.changed)
        send(producer, self.settings, TRACKS_TAGGED, f"{RELEASE}:{event.track_id}".encode(), encode_event(answer))
        if bad:
            key, value, headers = dead_letter(
                record,
                reason="refused_uri",
                message="lies outside the roots",
                attempts=1,
                release=RELEASE,
                max_bytes=100_000,
            )
            send(producer, self.settings, DEAD_LETTER, key, value, headers=headers)


@pytest.fixture
def start_worker(tastewave: Shell, settings: Settings) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(**changed: object) -> Worker:
        workers.append(Worker(settings, **changed))
        workers[-1].start()
        return workers[-1]

    create_topics(settings)
    yield start
    for worker in workers:
        worker.stopping.set()
        worker.join(30)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    for name in ("one.mp3", "two #2.flac", "bad.wav"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_an_upload_is_an_event_of_the_contract_under_its_track(
    tastewave: Shell, start_worker: Callable[..., Worker], music: Path
) -> None:
    before = time.time_ns() // 1_000_000
    table = tastewave("upload", music, "https://example.org/three.ogg?token=1")
    worker = start_worker()
    deadline = time.monotonic() + 30
    while len(worker.events) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    events = {event.title: event for _, event in worker.events}
    assert set(events) == {"one", "two #2", "bad", "three"}
    assert events["two #2"].uri == (music / "two #2.flac").as_uri()
    assert events["three"].uri == "https://example.org/three.ogg?token=1"
    assert len({event.event_id for event in events.values()}) == 4
    for key, event in worker.events:
        assert key == event.track_id.encode()
        assert before <= event.uploaded_at <= time.time_ns() // 1_000_000
        assert event.track_id in table


def test_uploads_are_followed_to_answers_and_dead_letters(
    tastewave: Shell, start_worker: Callable[..., Worker], music: Path
) -> None:
    start_worker()
    table = tastewave("upload", music, "--wait", rc=1)
    assert table.count("jazz") == 2
    assert "0.81" in table
    assert "sax, slow" in table
    assert "321" in table
    assert "refused_uri" in table
    assert "lies outside the roots" in table
    assert "1 of 3 uploads failed" in tastewave.error
    assert f"add {music} to them" in tastewave.error
    lines = tastewave.lines("upload", music / "one.mp3", "--wait", "--json", "--track-id", "my-track")
    assert len(lines) == 1
    assert (lines[0]["track_id"], lines[0]["status"], lines[0]["genre"]) == ("my-track", "tagged", "jazz")
    assert lines[0]["latency_ms"] == 321


def test_an_answer_to_a_later_event_of_the_track_ends_the_wait(
    tastewave: Shell, start_worker: Callable[..., Worker], music: Path
) -> None:
    later = time.time_ns() // 1_000_000 + 1_000_000
    start_worker(event_time=later, tagged_at=later + 5)
    assert tastewave.lines("upload", music / "one.mp3", "--wait", "--json")[0]["latency_ms"] == 5


def test_an_upload_whose_track_has_only_an_older_answer_is_given_up_and_said_so(
    tastewave: Shell, start_worker: Callable[..., Worker], music: Path
) -> None:
    start_worker(event_time=1, tagged_at=2)
    lines = tastewave.lines("upload", music / "one.mp3", "--wait", "--timeout", "2", "--json", rc=1)
    assert (lines[0]["status"], lines[0]["reason"]) == ("timed out", "timed out")
    assert "no answer came for 2 s" in lines[0]["message"]


def test_a_wait_follows_the_live_release_or_the_one_that_is_named(
    tastewave: Shell, start_worker: Callable[..., Worker], music: Path, client: redis.Redis
) -> None:
    client.hset(LIVE_KEY, mapping={"contract": 1, "release": RELEASE, "previous": "", "since": 1})
    start_worker(release="ffffffffffff", genre="rock")
    command = ("upload", music / "one.mp3", "--wait", "--json")
    (of_live,) = tastewave.lines(*command, "--timeout", "2", rc=1)
    assert of_live["status"] == "timed out"
    assert f"no answer of release {RELEASE} came for 2 s" in of_live["message"]
    (named,) = tastewave.lines(*command, "--release", "ffffffffffff")
    assert named["genre"] == "rock"
    start_worker()
    (of_live,) = tastewave.lines(*command)
    assert of_live["genre"] == "jazz"


def test_an_event_that_kafka_does_not_take_is_reported(tastewave: Shell, settings: Settings, music: Path) -> None:
    create_topics(settings)
    with_admin(
        settings,
        lambda admin: admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC, settings.topics.named(TRACKS_UPLOADED), {"max.message.bytes": "100"}
                )
            ]
        ),
    )
    lines = tastewave.lines("upload", music / "one.mp3", "--wait", "--json", rc=1)
    assert (lines[0]["status"], lines[0]["reason"]) == ("undelivered", "undelivered")
    assert lines[0]["message"]


# --- get track


ANSWER = TrackTagged(
    track_id="t1",
    release=RELEASE,
    status="tagged",
    event_time=1_700_000_000_000,
    event_id="e1",
    tagged_at=1_700_000_000_345,
    genre="jazz",
    confidence=0.75,
    genres=(("jazz", 0.75), ("blues", 0.125)),
    tags=(("sax", 0.5),),
    title="A [b]song[/b]",
)


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as client:
        yield client


def test_a_track_is_read_from_the_live_release_or_the_one_that_is_named(tastewave: Shell, client: redis.Redis) -> None:
    tastewave("get", "track", "t1", rc=1)
    assert "no release is live" in tastewave.error
    client.hset(LIVE_KEY, mapping={"contract": 1, "release": RELEASE, "previous": "", "since": 1})
    tastewave("get", "track", "t1", rc=1)
    assert "knows no track t1" in tastewave.error
    client.hset(track_key(RELEASE, "t1"), mapping=track_fields(ANSWER))
    assert decode_event(tastewave("get", "track", "t1", "--json").encode(), TrackTagged) == ANSWER
    table = tastewave("get", "track", "t1")
    for text in ("jazz 0.75, blues 0.12", "sax 0.50", "A [b]song[/b]", "2023-11-14 22:13:20.000 UTC", "345 ms"):
        assert text in table
    tastewave("get", "track", "t1", "--release", "ffffffffffff", rc=1)
    assert "release ffffffffffff knows no track t1" in tastewave.error
    tastewave("get", "track", "t1", rc=1, redis_url="redis://u:secret@127.0.0.1:1/0")
    assert "secret" not in tastewave.error


# --- release activate


def test_a_release_goes_live_that_has_answers_or_is_the_configured_one(tastewave: Shell, client: redis.Redis) -> None:
    shipped, other = load_release(), "ffffffffffff"
    client.hset(track_key(RELEASE, "t1"), mapping=track_fields(ANSWER))
    client.hset(track_key(other, "t1", prefix="another"), mapping=track_fields(ANSWER))
    assert f"{RELEASE} is live" in tastewave("release", "activate", RELEASE)
    tastewave("release", "activate", other, rc=1)
    assert f"Redis has no answer of release {other}, and the configured release is another one" in tastewave.error
    tastewave("release", "activate", "*", rc=1)
    tastewave("release", "activate", RELEASE.upper(), rc=1)
    assert client.hget(LIVE_KEY, "release").decode() == RELEASE
    for named in ((shipped.release_id,), (), (str(shipped.folder),)):
        client.delete(LIVE_KEY)
        assert f"{shipped.release_id} is live" in tastewave("release", "activate", *named)
        assert client.hget(LIVE_KEY, "release").decode() == shipped.release_id
    assert f"go back with `tastewave release activate {shipped.release_id}`" in tastewave(
        "release", "activate", other, "--force"
    )
    assert client.hget(LIVE_KEY, "release").decode() == other


def write_answers(client: redis.Redis, release: str, status: str, first: int, last: int, *, prefix: str = "tw") -> None:
    """Answers to the tracks of these numbers, with nothing but their status."""
    lua = "for at = ARGV[1], ARGV[2] do redis.call('HSET', KEYS[1] .. at .. '}', 'status', ARGV[3]) end"
    client.eval(lua, 1, track_key(release, "t", prefix=prefix)[:-1], first, last, status)


def test_a_release_that_would_blank_tracks_or_users_is_refused_unless_forced(
    settings: Settings, client: redis.Redis
) -> None:
    live, new = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
    client.hset(LIVE_KEY, "release", live)
    write_answers(client, live, "tagged", 1, 500)
    write_answers(client, live, "abstained", 501, 1000)
    write_answers(client, live, "failed", 1001, 1300)
    write_answers(client, new, "abstained", 1, 994)
    write_answers(client, new, "tagged", 1, 1000, prefix="another")
    of_tracks = f"release {new} covers 99.40 % of all 1,000 tracks of the live release {live}, and 99.5 % are needed"
    with pytest.raises(ReleaseCoversTooLittle, match=f"{of_tracks}.*`tastewave release rescore`"):
        activate_release(settings, new)
    assert client.hget(LIVE_KEY, "release").decode() == live
    client.hset(track_key(new, "t1000"), "status", "failed")  # readers would find nothing there either
    with pytest.raises(ReleaseCoversTooLittle, match=of_tracks):
        activate_release(settings, new)
    client.hset(track_key(new, "t1000"), "status", "tagged")
    client.hset(user_key(live, "ann"), "source", "history")
    of_users = f"release {new} covers 0.00 % of all 1 users of the live release {live}.*`tastewave users rebuild`"
    with pytest.raises(ReleaseCoversTooLittle, match=of_users):
        activate_release(settings, new)
    client.hset(user_key(new, "ann"), "source", "global")
    activate_release(settings, new)
    assert client.hget(LIVE_KEY, "release").decode() == new
    activate_release(settings, "cccccccccccc", force=True)
    assert client.hget(LIVE_KEY, "release").decode() == "cccccccccccc"
    client.hset(LIVE_KEY, "release", live)
    client.delete(track_key(new, "t1"), user_key(new, "ann"))
    with pytest.raises(ReleaseCoversTooLittle):
        activate_release(settings, new)
    lenient = dataclasses.replace(settings, worker=settings.worker.model_copy(update={"least_coverage": 0.0}))
    activate_release(lenient, new)
    assert client.hget(LIVE_KEY, "release").decode() == new


def test_of_many_keys_some_are_drawn_and_all_are_counted_where_those_do_not_tell(client: redis.Redis) -> None:
    live, new = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
    write_answers(client, live, "tagged", 1, 24_000)
    write_answers(client, new, "tagged", 1, 23_760)  # in the order of writing, the first 20,000 would all be covered
    options = {"of": live, "by": new, "key_prefix": "tw"}
    drawn = coverage(client, "track", least=0.997, **options)
    assert 20_000 <= drawn.keys < 22_000
    assert not drawn.whole
    assert drawn.tells(0.997) is False
    assert drawn.tells(0.98) is True
    assert drawn.share == pytest.approx(0.99, abs=0.002)
    close = coverage(client, "track", least=0.99, **options)
    assert (close.keys, close.covered, close.whole, close.tells(0.99)) == (24_000, 23_760, True, True)
    assert close.tells(0.9901) is False
    assert coverage(client, "user", least=0.99, **options).tells(0.99)  # there are none


async def test_clients_reach_the_server_and_return_bytes(settings: Settings) -> None:
    client = async_client(settings.redis)
    await client.set("key", "value")
    assert await client.get("key") == b"value"
    await client.aclose()
    with sync_client(settings.redis) as blocking:
        assert blocking.get("key") == b"value"


# --- rewind


GROUP = f"tastewave.tracks.{RELEASE}"
MINUTE_MS = 60_000


@pytest.fixture
def uploads(tastewave: Shell, settings: Settings, producer: KafkaProducer) -> str:
    """The topic of uploads: 60, 30 and 5 minutes old in partition 0, 60 in 1, 1 in 2; all but the last are answered."""
    create_topics(settings)
    now_ms = time.time_ns() // 1_000_000
    for partition, minutes in ((0, 60), (0, 30), (0, 5), (1, 60), (2, 1)):
        at = {"partition": partition, "timestamp_ms": now_ms - minutes * MINUTE_MS}
        send(producer, settings, TRACKS_UPLOADED, b"t", b"{}", **at)
    topic = settings.topics.named(TRACKS_UPLOADED)
    offsets = {TopicPartition(topic, number): OffsetAndMetadata(offset, "", -1) for number, offset in ((0, 3), (1, 1))}
    offsets[TopicPartition(topic, 2)] = OffsetAndMetadata(0, "", -1)
    with_admin(settings, lambda admin: admin.alter_group_offsets(settings.topics.named(GROUP), offsets))
    return topic


def committed(settings: Settings) -> list[int]:
    held = []
    with_admin(settings, lambda admin: held.append(admin.list_group_offsets([settings.topics.named(GROUP)])))
    offsets = held[0][settings.topics.named(GROUP)]
    return [offsets[place].offset for place in sorted(offsets)]


def moves(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines() if re.fullmatch(r"( +\d+){4} *", line)]


def test_a_rewind_goes_back_to_the_uploads_of_that_time_and_never_forward(
    tastewave: Shell, settings: Settings, uploads: str
) -> None:
    rewind = ("rewind", "tracks", "--release", RELEASE, "--minutes")
    planned = tastewave(*rewind, "10", "--dry-run")
    assert moves(planned) == [["0", "3", "2", "1"], ["1", "1", "1", "0"], ["2", "0", "0", "0"]]
    assert "1 event would be handled again" in planned
    assert committed(settings) == [3, 1, 0]
    assert moves(tastewave(*rewind, "10")) == moves(planned)
    assert committed(settings) == [2, 1, 0]
    assert "Nothing to rewind: no event of the last 10 minutes has been handled." in tastewave(*rewind, "10")
    assert "Start the workers. They handle 3 events again;" in tastewave(*rewind, "90")
    assert committed(settings) == [0, 0, 0]
    assert "Nothing to rewind" in tastewave(*rewind, "99999999999")


def test_a_rewind_takes_uploads_along_whose_kafka_times_are_odd(
    tastewave: Shell, settings: Settings, producer: KafkaProducer
) -> None:
    """Partition 0: uploads of the last days, then a backfill that has the dates of its tracks, and one of now."""
    create_topics(settings)
    now_ms = time.time_ns() // 1_000_000
    ago = [now_ms - minutes * MINUTE_MS for minutes in (3000, 90, 60)]
    backfill = [now_ms - days * 1440 * MINUTE_MS for days in (3, 1000, 2, 5000)]
    for at in (*ago, *backfill, now_ms):
        send(producer, settings, TRACKS_UPLOADED, b"t", b"{}", partition=0, timestamp_ms=at)
    for at in (0, now_ms - 5000 * 1440 * MINUTE_MS):
        send(producer, settings, TRACKS_UPLOADED, b"t", b"{}", partition=1, timestamp_ms=at)
    topic = settings.topics.named(TRACKS_UPLOADED)
    offsets = {TopicPartition(topic, number): OffsetAndMetadata(held, "", -1) for number, held in ((0, 8), (1, 2))}
    with_admin(settings, lambda admin: admin.alter_group_offsets(settings.topics.named(GROUP), offsets))
    told = tastewave("rewind", "tracks", "--release", RELEASE, "--minutes", "10")
    assert moves(told) == [["0", "8", "3", "5"], ["1", "2", "0", "2"]]
    assert "The Kafka times of the events are not in order in partition 0, 1, which goes back by offsets" in told
    assert committed(settings) == [3, 0]


def test_a_rewind_tells_what_retention_has_dropped_of_the_time(
    tastewave: Shell, settings: Settings, uploads: str
) -> None:
    gone = {TopicPartition(uploads, 0): 1, TopicPartition(uploads, 1): 1}
    with_admin(settings, lambda admin: admin.delete_records(gone))
    rewind = ("rewind", "tracks", "--release", RELEASE, "--minutes")
    assert "in partition 1 (empty);" in tastewave(*rewind, "10", "--dry-run")
    told = tastewave(*rewind, "45")
    assert re.search(r"in partition 0 \(left from \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC on\), 1 \(empty\);", told)
    assert committed(settings) == [1, 1, 0]


def test_a_rewind_is_refused_while_workers_run_and_shown_all_the_same(
    tastewave: Shell, settings: Settings, uploads: str
) -> None:
    rewind = ("rewind", "tracks", "--release", RELEASE, "--minutes", "10")
    running = KafkaConsumer(
        uploads, **settings.kafka.client_arguments(), group_id=settings.topics.named(GROUP), enable_auto_commit=False
    )
    # Not by short polls: kafka-python joins again where it learned of the topic late. If a poll ends meanwhile, the
    # consumer never takes what it was assigned.
    running.poll(timeout_ms=30_000)
    assert running.assignment()
    try:
        assert len(moves(tastewave(*rewind, "--dry-run"))) == 3
        tastewave(*rewind, rc=1)
    finally:
        running.close()
    group = settings.topics.named(GROUP)
    expected = f"the tracks workers of release {RELEASE} run (1 in consumer group {group}, on 127.0.0.1)"
    assert expected in tastewave.error
    assert committed(settings) == [3, 1, 0]
    tastewave(*rewind)
    assert committed(settings) == [2, 1, 0]


def test_a_rewind_of_workers_that_never_were_is_refused(tastewave: Shell, settings: Settings) -> None:
    tastewave("rewind", "tracks", "--minutes", "5", rc=1)
    assert "tastewave topics create" in tastewave.error
    create_topics(settings)
    tastewave("rewind", "tracks", "--minutes", "5", "--release", "ffffffffffff", rc=1)
    assert (
        "tastewave.tracks.ffffffffffff has committed nothing, so there is nothing to go back over; check --release"
        in tastewave.error
    )


# --- listen


def test_listens_are_published_a_millisecond_apart_and_checked_before(tastewave: Shell, settings: Settings) -> None:
    tastewave("listen", "ann", "t1", rc=1)
    assert "tastewave topics create" in tastewave.error
    create_topics(settings)
    tastewave("listen", "ann", "t1", "--at", "1767225600", rc=1)
    assert "looks like seconds" in tastewave.error
    assert "2 listens (play) of ann published" in tastewave("listen", "ann", "t1", "t2", "--at", "1767225600000")
    tastewave("listen", "ann", "t2", "--kind", "like", "--at", "1767225600005")
    with kafka_client(KafkaConsumer, settings.kafka) as consumer:
        places = partitions_of(consumer, settings.topics.named(LISTENS))
        records = list(records_between(consumer, consumer.beginning_offsets(places), consumer.end_offsets(places)))
    assert {record.key for record in records} == {b"ann"}
    listens = [decode_event(record.value, Listen) for record in records]
    assert [(one.track_id, one.kind, one.at - 1767225600000) for one in listens] == [
        ("t1", "play", -1),
        ("t2", "play", 0),
        ("t2", "like", 5),
    ]
    assert [(one.played_ms, one.duration_ms) for one in listens] == [(180_000, 180_000)] * 2 + [(None, None)]
    tastewave("listen", "ann", "t1", "--wait", "--timeout", "0.2", rc=1)
    assert "no new embedding of ann came for 0.2 s" in tastewave.error


def test_a_rewind_of_listens_moves_the_group_of_the_listens_workers(
    tastewave: Shell, settings: Settings, producer: KafkaProducer
) -> None:
    create_topics(settings)
    send(producer, settings, LISTENS, b"u", b"{}", partition=0)
    group = settings.topics.named(f"tastewave.listens.{RELEASE}")
    offsets = {TopicPartition(settings.topics.named(LISTENS), 0): OffsetAndMetadata(1, "", -1)}
    with_admin(settings, lambda admin: admin.alter_group_offsets(group, offsets))
    told = tastewave("rewind", "listens", "--release", RELEASE, "--minutes", "10")
    assert moves(told) == [["0", "1", "0", "1"]]
    assert "They handle 1 event again; listens that Redis still holds change nothing." in told


# --- simulate


def test_a_platform_is_published_in_the_order_of_its_times_at_the_rate_that_was_asked_for(
    tastewave: Shell, settings: Settings, tmp_path: Path
) -> None:
    platform = tmp_path / "platform"
    tastewave("simulate", tmp_path, rc=1)
    assert f"{tmp_path} is no synthetic platform" in tastewave.error
    make = ["synth", "platform", platform, "--tracks", "16", "--users", "20", "--listens", "1000", "--no-audio"]
    assert run_command("tastewave-offline", *make, environment={}).returncode == 0
    create_topics(settings)
    started = time.monotonic()
    told = tastewave("simulate", platform, "--rate", "1000")
    took_s = time.monotonic() - started
    assert took_s > 0.75  # four waits of 200 events each
    assert re.search(r"^0 uploads and 1,000 listens in [\d.]+ s: [\d,]+ events/s", told)
    rate = float(re.search(r"([\d,]+) events/s", told)[1].replace(",", ""))
    assert 1000 / took_s <= rate <= 1300
    with kafka_client(KafkaConsumer, settings.kafka) as consumer:
        places = partitions_of(consumer, settings.topics.named(LISTENS))
        records = list(records_between(consumer, consumer.beginning_offsets(places), consumer.end_offsets(places)))
    listens = [decode_event(record.value, Listen) for record in records]
    assert len({listen.event_id for listen in listens}) == 1000
    of_partition = {}
    for record, listen in zip(records, listens, strict=True):
        assert record.key == listen.user_id.encode()
        of_partition.setdefault(record.partition, []).append(listen.at)
    assert len(of_partition) == 3
    assert all(times == sorted(times) for times in of_partition.values())
