"""`tastewave-offline dump` against the real broker."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from deploy.local import Kafka
from models.contract import LISTENS
from models.events import Listen, encode_event
from offline.interactions.dump_folder import Span
from offline.interactions.dump_kafka import READING, PartitionReader
from offline.interactions.dump_parquet import log_files
from tests.platform.commands import OFFLINE, run_command

pytestmark = pytest.mark.servers

PARTITIONS = 3
YEAR_2023_MS = 1_700_000_000_000
MINUTE_MS = 60_000


def listen(number: int) -> Listen:
    kind = ("play", "skip", "like", "playlist_add")[number % 4]
    lengths = {"played_ms": number, "duration_ms": 180_000} if kind in ("play", "skip") else {}
    return Listen(event_id=f"e{number}", user_id=f"u{number % 50}", track_id=f"t{number % 99}", kind=kind,
                  at=YEAR_2023_MS + number, **lengths)  # fmt: skip


class Listens:
    """A topic of listens, the command that dumps it, and what it dumped."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.brokers, self.folder = environment["TASTEWAVE_KAFKA_BROKERS"], folder
        self.topic = environment["TASTEWAVE_TOPIC_PREFIX"] + LISTENS
        self.admin = KafkaAdminClient(bootstrap_servers=self.brokers)
        self.producer = KafkaProducer(bootstrap_servers=self.brokers, acks="all", linger_ms=20, compression_type="gzip")
        self.create()

    def create(self) -> None:
        self.admin.create_topics({self.topic: {"num_partitions": PARTITIONS}}, wait_for_metadata=True)

    def send(self, value: bytes | None, number: int, *, at_ms: int | None = None) -> None:
        self.producer.send(self.topic, key=b"user", value=value, partition=number % PARTITIONS, timestamp_ms=at_ms)

    def produce(self, numbers: range, *, at_ms: int | None = None) -> list[Listen]:
        events = [listen(number) for number in numbers]
        for number, event in zip(numbers, events, strict=True):
            self.send(encode_event(event), number, at_ms=at_ms)
        self.producer.flush()
        return events

    def command(self, *options: str | int) -> list[str]:
        return [str(OFFLINE), "dump", str(self.folder), "--brokers", self.brokers, "--topic", self.topic,
                *map(str, options)]  # fmt: skip

    def dump(self, *options: str | int, rc: int = 0, before: Callable[[], None] | None = None) -> str:
        """What the command prints: its output, or its one sentence of an error."""
        if before:
            done = subprocess.run(
                self.command(*options), capture_output=True, text=True, check=False, timeout=120, preexec_fn=before
            )
        else:
            done = run_command("tastewave-offline", *self.command(*options)[1:], environment={})
        assert done.returncode == rc, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if rc:
            assert done.stderr.startswith("Error: ")
            assert len(done.stderr.strip().splitlines()) == 1
        return done.stderr if rc else done.stdout

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def held(self) -> list[Listen]:
        return [Listen(**row) for path in self.files() for row in pl.read_parquet(path).rows(named=True)]

    def malformed(self) -> list[dict]:
        lines = [line for path in sorted(self.folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
        return [json.loads(line) for line in lines]

    def assert_holds(self, events: list[Listen]) -> None:
        """Each of the events once, and nothing else."""
        assert sorted(self.held(), key=lambda event: event.at) == events
        assert not list(self.folder.glob(".*.partial"))

    def close(self) -> None:
        self.producer.close()
        self.admin.close()


@pytest.fixture
def listens(environment: dict[str, str], tmp_path: Path) -> Iterator[Listens]:
    listens = Listens(environment, tmp_path / "log")
    yield listens
    listens.close()


def test_a_dump_holds_what_was_produced_and_another_adds_nothing(listens: Listens) -> None:
    events = listens.produce(range(3000))
    assert listens.dump("--events-per-file", 300).startswith("3,000 events in 12 new files in ")
    listens.assert_holds(events)
    files = {path: path.stat().st_mtime_ns for path in listens.files()}
    assert "nothing new" in listens.dump()
    assert {path: path.stat().st_mtime_ns for path in listens.files()} == files


def test_new_events_come_to_further_files(listens: Listens) -> None:
    events = listens.produce(range(30))
    listens.dump()
    assert len(listens.files()) == 3
    events += listens.produce(range(30, 90))
    assert listens.dump().startswith("60 events in 3 new files")
    listens.assert_holds(events)
    assert [path.name.partition("-p")[2] for path in listens.files()[:2]] == [
        "00000-000000000000-000000000010.parquet",
        "00000-000000000010-000000000030.parquet",
    ]


def test_a_dump_that_is_killed_again_and_again_ends_whole(listens: Listens) -> None:
    events = listens.produce(range(20_000))
    for kill in range(4):
        before = len(listens.files())
        running = subprocess.Popen(listens.command("--events-per-file", 97 + kill), stdout=subprocess.DEVNULL)
        eventually(lambda before=before: len(listens.files()) >= before + 5)
        assert running.poll() is None
        running.send_signal(signal.SIGKILL)
        assert running.wait(30) == -signal.SIGKILL
    assert 20 <= len(listens.files()) < 200
    listens.dump()
    listens.assert_holds(events)


@contextlib.contextmanager
def dumping(listens: Listens) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A dump that has written files, and the processes in which it reads."""
    command = listens.command("--events-per-file", 50)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        eventually(lambda: len(listens.files()) >= 3 or running.poll() is not None)
        assert running.poll() is None, running.stderr and running.stderr.read()
        below = psutil.Process(running.pid).children()
        yield running, [child for child in below if "multiprocessing.spawn" in " ".join(child.cmdline())]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_partitions_are_read_side_by_side_and_no_reader_outlives_a_dump_that_is_killed(listens: Listens) -> None:
    events = listens.produce(range(20_000))
    with dumping(listens) as (running, readers):
        assert len(readers) == min(PARTITIONS, len(os.sched_getaffinity(0)))
        running.kill()
        running.wait(30)
        eventually(lambda: not any(map(psutil.Process.is_running, readers)))
    assert len(listens.files()) < 300
    listens.dump()
    listens.assert_holds(events)


def test_a_reader_that_is_killed_ends_the_dump_with_one_sentence_and_another_dump_goes_on(listens: Listens) -> None:
    events = listens.produce(range(20_000))
    with dumping(listens) as (running, readers):
        readers[0].kill()
        said = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert said.startswith("Error: a process that read a partition was killed, perhaps for want of memory; run this")
    assert len(said.splitlines()) == 1
    assert len(listens.files()) < 300
    listens.dump()
    listens.assert_holds(events)


def test_malformed_events_stand_beside_with_reasons(listens: Listens) -> None:
    values = [b"", None, b"{}", b"\xff" * 9000, encode_event(listen(2)).replace(b"like", b"hum")]
    for value in values:
        listens.send(value, 1)
    events = listens.produce(range(40))
    said = listens.dump()
    assert said.startswith("40 events in 3 new files")
    assert "5 malformed events besides" in said
    listens.assert_holds(events)
    lines = listens.malformed()
    assert [(line["partition"], line["offset"]) for line in lines] == [(1, offset) for offset in range(5)]
    assert {line["reason"] for line in lines} == {"malformed_event"}
    assert "missing required field" in lines[2]["message"]
    assert [line["truncated"] for line in lines] == [False, False, False, True, False]
    assert "nothing new" in listens.dump()
    assert len(listens.malformed()) == 5


def test_a_range_of_time_is_dumped_and_the_rest_later_without_doubling(listens: Listens) -> None:
    hours = [listens.produce(range(30 * n, 30 * n + 30), at_ms=YEAR_2023_MS + n * 60 * MINUTE_MS) for n in range(4)]
    for zone in ("", "+00:00"):  # the second adds nothing
        listens.dump("--from-time", "2023-11-14T23:13:20" + zone, "--to-time", "2023-11-15T01:13:20" + zone)
        listens.assert_holds(hours[1] + hours[2])
    listens.dump("--to-time", "2023-11-15T00:00:00")
    listens.assert_holds([*hours[0], *hours[1], *hours[2]])
    assert "nothing new" in listens.dump("--from-time", "2030-01-01")
    listens.dump()
    listens.assert_holds([*hours[0], *hours[1], *hours[2], *hours[3]])


def test_a_range_of_offsets_of_a_partition_is_dumped(listens: Listens) -> None:
    events = listens.produce(range(60))
    listens.dump("--partition", 1, "--from-offset", 5, "--to-offset", 8)
    listens.assert_holds([events[16], events[19], events[22]])
    listens.dump("--from-offset", 6)
    listens.assert_holds([event for number, event in enumerate(events) if number // 3 >= 6 or number == 16])
    listens.dump()
    listens.assert_holds(events)
    assert "no 9" in listens.dump("--partition", 9, rc=1)
    assert "--from-offset is not before --to-offset" in listens.dump("--from-offset", 9, "--to-offset", 9, rc=1)


def test_aborted_transactions_are_not_dumped_and_markers_are_covered(listens: Listens) -> None:
    producer = KafkaProducer(bootstrap_servers=listens.brokers, transactional_id=listens.topic)
    producer.init_transactions()
    committed = []
    for number in range(4):
        producer.begin_transaction()
        event = listen(number)
        producer.send(listens.topic, value=encode_event(event), partition=0).get(30)  # or an abort drops it here
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            committed.append(event)
    producer.close()
    assert listens.dump("--events-per-file", 1).startswith("2 events in ")
    listens.assert_holds(committed)
    assert listens.files()[-1].name.endswith("-000000000008.parquet")
    assert "nothing new" in listens.dump()


def test_what_retention_dropped_is_said_unless_the_log_has_it(listens: Listens) -> None:
    events = listens.produce(range(60))
    listens.dump("--partition", 0)
    listens.admin.delete_records({TopicPartition(listens.topic, 0): 7, TopicPartition(listens.topic, 1): 5})
    said = listens.dump()
    assert "not hold any more (retention), nor does" in said
    assert said.strip().endswith(": offsets 0 to 4 of partition 1")
    listens.assert_holds([event for number, event in enumerate(events) if number % 3 != 1 or number // 3 >= 5])
    said = listens.dump("--from-time", "2020-01-01")
    assert said.strip().endswith(": what stood before offset 5 of partition 1, perhaps of that time")


def test_what_retention_drops_while_it_is_read_is_passed_over_and_said(listens: Listens) -> None:
    events = listens.produce(range(60))
    place = TopicPartition(listens.topic, 0)
    with contextlib.closing(KafkaConsumer(bootstrap_servers=listens.brokers, **READING)) as consumer:
        source = PartitionReader(consumer, place, 0)  # all was there when the dump started
        listens.admin.delete_records({place: 7})
        (file,) = log_files(source, topic=listens.topic, partition=0, span=Span(0, 20), events_per_file=100)
    assert source.dropped == [Span(0, 7)]
    assert file.span == Span(0, 20)
    rows = pl.read_parquet(bytes(file.parquet)).rows(named=True)
    assert [Listen(**row) for row in rows] == events[21::3]


def test_a_topic_that_was_made_anew_is_refused(listens: Listens) -> None:
    events = listens.produce(range(30))
    listens.dump()
    listens.admin.delete_topics([listens.topic])
    deadline = time.monotonic() + 30
    while listens.topic in listens.admin.list_topics():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    listens.create()
    listens.produce(range(100, 200))  # it goes on beyond what was dumped of the old one
    assert "was not dumped from this topic, which was made anew" in listens.dump(rc=1)
    listens.assert_holds(events)


def test_offsets_that_the_topic_never_had_are_refused(listens: Listens) -> None:
    listens.produce(range(30))
    listens.dump()
    path = listens.files()[0]
    path.rename(path.with_name(path.name.replace("-000000000010.", "-000000000099.")))
    assert "partition 0 ends at offset 10" in listens.dump(rc=1)


def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing_half_written(listens: Listens) -> None:
    events = listens.produce(range(20_000))

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    assert "cannot be written (File too large); make room" in listens.dump(rc=1, before=small_files)
    assert not list(listens.folder.iterdir())
    listens.dump()
    listens.assert_holds(events)


def test_a_folder_is_dumped_to_by_one_at_a_time(listens: Listens) -> None:
    events = listens.produce(range(30))
    listens.folder.mkdir()
    with (listens.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is writing" in listens.dump(rc=1)
        assert [path.name for path in listens.folder.iterdir()] == [".lock"]
    listens.dump()
    listens.assert_holds(events)


def test_a_topic_that_is_missing_is_one_sentence_and_makes_no_folder(listens: Listens) -> None:
    for name in ("no-such-topic", "../up", "a b"):
        assert f"has no topic {name}; name it with --topic" in listens.dump("--topic", name, rc=1)
    assert not listens.folder.exists()


def test_a_batch_that_is_damaged_on_the_broker_is_one_sentence_that_says_what_helps(
    environment: dict[str, str], kafka: Kafka, tmp_path: Path
) -> None:
    listens = Listens(environment | {"TASTEWAVE_KAFKA_BROKERS": kafka.brokers}, tmp_path / "log")
    listens.produce(range(90))
    kafka.pause()
    with (kafka.folder / "data" / f"{listens.topic}-1" / "00000000000000000000.log").open("r+b") as log:
        log.seek(-20, os.SEEK_END)
        log.write(b"damaged")
    kafka.resume()
    said = listens.dump(rc=1)
    assert "damaged" in said
    assert "--partition" in said
    listens.close()
