import base64
import contextlib
import errno
import itertools
import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import EventError, SettingsError
from models.events import Listen, decode_event, encode_event
from offline.cli import cli
from offline.config import load_config
from offline.interactions.dump import (
    DumpConfig,
    DumpFailed,
    KafkaArguments,
    LogFile,
    Span,
    dump_listens,
    gaps,
    held,
    log_files,
    malformed_line,
    publish,
    tidy,
    time_ms,
)

TOPIC = "prod.listens"
YEAR_2023_MS = 1_700_000_000_000


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes | None


def listen(offset: int, **fields) -> Listen:
    fields = {"track_id": "t", "kind": "play", "played_ms": 3 * offset, "duration_ms": 180_000} | fields
    return Listen(event_id=f"e{offset}", user_id=f"u{offset % 7}", at=YEAR_2023_MS + offset, **fields)


def record(offset: int, *, malformed: bool = False) -> Record:
    return Record(offset, YEAR_2023_MS, b'{"event_id": 7}' if malformed else encode_event(listen(offset)))


class Topic:
    """A partition in memory; reads go beyond what was asked for, as far as its end, as those of Kafka do."""

    def __init__(self, records: list[Record], *, end: int, batch: int = 1_000_000) -> None:
        self.records, self.end, self.batch = sorted(records), end, batch

    def at(self, position: int) -> "Topic":
        self.position = position
        return self

    def read(self, most: int) -> tuple[list[Record], int]:
        found = [record for record in self.records if record.offset >= self.position]
        taken = found[: min(most, self.batch)]
        self.position = taken[-1].offset + 1 if len(taken) < len(found) else self.end
        return taken, self.position


def files_of(topic: Topic, span: Span, events_per_file: int = 100):
    source = topic.at(span.first)
    return log_files(source, topic=TOPIC, partition=3, span=span, events_per_file=events_per_file, topic_id="id")


def dump(folder: Path, topic: Topic, span: Span, *, events_per_file: int = 100):
    tidy(folder)
    for gap in gaps(span, held(folder, TOPIC).get(3, {})):
        for file in files_of(topic, gap, events_per_file):
            yield file
            publish(folder, file)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def events(folder: Path) -> list[str]:
    return [event for path in folder.glob("*.parquet") for event in pl.read_parquet(path)["event_id"]]


def malformed(folder: Path) -> list[int]:
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["offset"] for line in lines]


# --- coverage


spans = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda pair: Span(pair[0], sum(pair)))


@given(spans, st.lists(spans))
def test_gaps_are_what_no_other_span_covers(wanted: Span, covered: list[Span]):
    found = gaps(wanted, covered)
    offsets = [offset for span in found for offset in range(*span)]
    assert offsets == sorted(set(range(*wanted)) - {offset for span in covered for offset in range(*span)})
    assert all(before.end < after.first for before, after in itertools.pairwise(found))


class Run(NamedTuple):
    span: Span
    events_per_file: int
    killed_after: int | None
    left: str


runs = st.builds(
    Run, spans, st.integers(1, 9), st.none() | st.integers(0, 4), st.sampled_from(["nothing", "drafts", "side file"])
)


def kill(folder: Path, file: LogFile, left: str) -> None:
    """What a kill leaves of a file that was about to come."""
    if left == "drafts":
        (folder / f".listens-{file.stem}.parquet.partial").write_bytes(bytes(file.parquet)[:100])
        (folder / f".malformed-{file.stem}.jsonl.partial").write_bytes(b'{"off')
    elif left == "side file" and file.lines:
        publish(folder, file)
        (folder / f"listens-{file.stem}.parquet").unlink()


@settings(deadline=None, max_examples=80)
@given(st.sets(st.integers(0, 51)), st.sets(st.integers(0, 51)), st.integers(1, 60), st.lists(runs, max_size=8))
def test_any_runs_and_kills_cover_each_offset_once(good: set[int], bad: set[int], batch: int, runs: list[Run]):
    good = good - bad
    topic = Topic([record(offset, malformed=offset in bad) for offset in good | bad], end=52, batch=batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run in runs:
            span = Span(run.span.first, min(run.span.end, topic.end))
            for number, file in enumerate(dump(folder, topic, span, events_per_file=run.events_per_file)):
                assert file.events + file.malformed <= run.events_per_file
                if number == run.killed_after:
                    kill(folder, file, run.left)
                    break
        for _ in dump(folder, topic, Span(0, topic.end)):
            pass
        covered = held(folder, TOPIC)[3]
        assert gaps(Span(0, topic.end), covered) == []
        assert sum(span.end - span.first for span in covered) == topic.end
        assert sorted(events(folder)) == sorted(f"e{offset}" for offset in good)
        assert sorted(malformed(folder)) == sorted(bad)
        stems = {path.stem.partition("-")[2] for path in folder.glob("malformed-*")}
        assert len(names(folder)) == len(covered) + len(stems)
        assert stems <= {path.stem.partition("-")[2] for path in covered.values()}


def test_a_file_is_named_after_topic_partition_and_offsets(tmp_path: Path):
    for _ in dump(tmp_path, Topic([record(0), record(4, malformed=True)], end=7), Span(0, 7)):
        pass
    assert names(tmp_path) == [
        "listens-prod.listens-p00003-000000000000-000000000007.parquet",
        "malformed-prod.listens-p00003-000000000000-000000000007.jsonl",
    ]
    assert held(tmp_path, "another") == {}


def test_a_topic_whose_name_ends_like_a_file_is_told_from_others(tmp_path: Path):
    odd = "x-p00001-000000000000-000000000005"
    (file,) = log_files(Topic([], end=9).at(2), topic=odd, partition=0, span=Span(2, 9), events_per_file=5)
    publish(tmp_path, file)
    assert list(held(tmp_path, odd)[0]) == [Span(2, 9)]
    assert held(tmp_path, "x") == {}


def test_offsets_beyond_twelve_digits_are_read_back(tmp_path: Path):
    span = Span(10**15, 10**15 + 3)
    (file,) = files_of(Topic([record(10**15)], end=span.end), span)
    publish(tmp_path, file)
    assert list(held(tmp_path, TOPIC)[3]) == [span]


def test_files_that_overlap_are_refused(tmp_path: Path):
    for span in (Span(0, 10), Span(9, 12)):
        publish(tmp_path, next(files_of(Topic([], end=12), span)))
    with pytest.raises(DumpFailed, match=r"0-000000000010\.parquet and listens-.* cover the same offsets"):
        held(tmp_path, TOPIC)


def test_only_what_dumps_left_is_tidied_away(tmp_path: Path):
    others = ["malformed-mine.jsonl", ".listens", "notes.partial", ".notes.partial", "_log"]
    stale = [".listens-a-p00000-x.parquet.partial", "malformed-a-p00000-000000000000-000000000001.jsonl"]
    for name in others + stale:
        (tmp_path / name).touch()
    tidy(tmp_path)
    assert names(tmp_path) == sorted(others)


# --- content


def test_a_file_holds_the_events_in_the_columns_of_a_log(tmp_path: Path):
    whole = [listen(0), listen(1, kind="like", played_ms=None, duration_ms=None), listen(2, track_id="Ünïcødé\0")]
    topic = Topic([Record(event.at - YEAR_2023_MS, 5, encode_event(event)) for event in whole], end=3)
    publish(tmp_path, next(files_of(topic, Span(0, 3))))
    (path,) = tmp_path.iterdir()
    assert [Listen(**row) for row in pl.read_parquet(path).rows(named=True)] == whole
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert pl.read_parquet(path).schema == {
        **{"user_id": pl.String, "track_id": pl.String, "at": pl.Int64, "event_id": pl.String, "kind": pl.String},
        **{"played_ms": pl.Int64, "duration_ms": pl.Int64},
    }


def test_offsets_without_any_event_are_covered_by_a_file_without_rows(tmp_path: Path):
    publish(tmp_path, next(files_of(Topic([], end=3), Span(0, 3))))
    (path,) = tmp_path.iterdir()
    assert pl.read_parquet(path).is_empty()
    assert pl.read_parquet(path).columns[:3] == ["user_id", "track_id", "at"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "needs a JSON value"),
        (b"\xff\xfe", "not a Listen event"),
        (b"x" * 5000, "not a Listen event"),
        (b'{"kind": "\\ud800"}', "not a Listen event"),
        (encode_event(listen(1, kind="like")).replace(b"like", b"z" * 90_000), "not a Listen event"),
    ],
)
def test_what_is_malformed_is_kept_with_its_place_and_a_reason(value: bytes | None, says: str):
    with pytest.raises(EventError) as caught:
        decode_event(value, Listen)
    line = malformed_line(Record(41, YEAR_2023_MS, value), partition=3, error=caught.value)
    assert len(line) < 8000
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert says in found.pop("message")
    kept = found.pop("value")
    assert (base64.b64decode(kept) if kept is not None else None) == (value and value[:4096])
    truncated = value is not None and len(value) > 4096
    assert found == {"partition": 3, "offset": 41, "time": YEAR_2023_MS, "reason": "malformed_event"} | {
        "truncated": truncated
    }


def test_a_file_ends_where_its_malformed_events_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("offline.interactions.dump._MAX_MALFORMED_BYTES", 1_000_000)
    junk = Topic([Record(offset, 0, b"\xff" * 4096) for offset in range(1000)], end=1000, batch=50)
    files = list(files_of(junk, Span(0, 1000), events_per_file=1_000_000))
    assert len(files) > 4
    assert max(len(file.lines) for file in files) < 1_500_000
    assert sum(file.malformed for file in files) == 1000


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = next(files_of(Topic([record(0), record(1, malformed=True)], end=2), Span(0, 2)))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DumpFailed, match=r"cannot be written \(No space left on device\); make room"):
        publish(tmp_path, file)
    assert names(tmp_path) == []


# --- what is asked for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("2023-11-14T22:13:20", YEAR_2023_MS),
        ("2023-11-14T22:13:20.123999Z", YEAR_2023_MS + 123),
        ("2023-11-14T23:13:20+01:00", YEAR_2023_MS),
        ("0001-01-01", 0),
    ],
)
def test_times_are_utc_where_they_name_no_zone(text: str, expected: int):
    assert time_ms(text) == expected


@pytest.mark.parametrize("text", ["yesterday", "1700000000", "2023-13-01", ""])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(SettingsError, match="is no ISO-8601 time; write 2026-11-01"):
        time_ms(text)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"from_offset": 5, "to_offset": 5}, "--from-offset is not before --to-offset"),
        ({"from_time_ms": 6, "to_time_ms": 5}, "--from-time is not before --to-time"),
        ({"from_time_ms": 6, "from_offset": 5}, "both --from-time and --from-offset"),
        ({"to_time_ms": 6, "to_offset": 5}, "both --to-time and --to-offset"),
    ],
)
def test_a_range_that_is_none_is_refused(fields: dict, says: str):
    with pytest.raises(SettingsError, match=says):
        DumpConfig(**fields)


def test_arguments_of_the_client_come_from_a_file(tmp_path: Path):
    file = tmp_path / "kafka.toml"
    file.write_text('security_protocol = "SSL"\nsasl_plain_username = "trainer"\nssl_check_hostname = false\n')
    found = load_config(KafkaArguments, toml=file)
    expected = ("SSL", "trainer", False)
    assert (found.security_protocol, found.sasl_plain_username, found.ssl_check_hostname) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('sasl_plain_user = "trainer"', "no setting 'sasl_plain_user'; did you mean sasl_plain_username"),
        ('sasl_mechanism = "ROT13"', "ROT13"),
        ("sasl_plain_password = 12345678", "Expected `str"),
        ('security_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"', "SASL_SSL needs sasl_plain_username"),
        ('ssl_cafile = "/etc/no-such.pem"', "ssl_cafile /etc/no-such.pem is no file"),
    ],
)
def test_arguments_of_the_client_that_cannot_be_right_are_refused(tmp_path: Path, line: str, says: str):
    (tmp_path / "kafka.toml").write_text(line)
    with pytest.raises(SettingsError, match=says) as caught:
        load_config(KafkaArguments, toml=tmp_path / "kafka.toml")
    assert "12345678" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL"])
def test_a_kafka_that_is_away_is_one_sentence_within_seconds_and_without_the_password(tmp_path: Path, protocol: str):
    with contextlib.closing(socket.socket()) as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        client = KafkaArguments(
            security_protocol=protocol, sasl_mechanism="PLAIN", sasl_plain_username="me", sasl_plain_password="canary1"
        )
        brokers = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(DumpFailed, match=f"Kafka at {brokers} cannot be used .* check that it runs") as caught:
            dump_listens(tmp_path / "log", DumpConfig(brokers=brokers, client=client))
    assert time.monotonic() - started < 15
    assert "canary1" not in str(caught.value)
    assert not (tmp_path / "log").exists()


def test_help_teaches_with_examples_and_names_the_files():
    shown = CliRunner().invoke(cli, ["dump", "--help"]).output
    assert shown.count("  tastewave-offline dump ") == 4
    assert "listens-TOPIC-pPARTITION-FIRST-END.parquet" in shown
    assert "sasl_plain_password" in shown
