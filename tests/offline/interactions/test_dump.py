import contextlib
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.errors import SettingsError
from offline.cli import cli
from offline.config import load_config
from offline.interactions.dump import Dump, Outcome, run, time_ms
from offline.interactions.dump_folder import DumpFailed
from offline.interactions.dump_kafka import KafkaArguments
from tests.offline.interactions.small_topics import YEAR_2023_MS


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
        Dump(out="log", **fields)


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
            run(Dump(out=str(tmp_path / "log"), brokers=brokers, client=client))
    assert time.monotonic() - started < 15
    assert "canary1" not in str(caught.value)
    assert not (tmp_path / "log").exists()


def test_help_teaches_with_examples_and_names_the_files():
    shown = CliRunner().invoke(cli, ["dump", "--help"]).output
    assert shown.count("  tastewave-offline dump ") == 6
    assert "listens-TOPIC-pPARTITION-FIRST-END.parquet" in shown
    assert "sasl_plain_password" in shown


def test_settings_are_given_by_words_as_well():
    words = ["partitions=[3, 5]", "from_offset=7", "events_per_file=9", "client.ssl_check_hostname=false"]
    settings = load_config(Dump, overrides=words, out="log")
    assert settings == Dump(
        out="log", partitions=(3, 5), from_offset=7, events_per_file=9, client=KafkaArguments(ssl_check_hostname=False)
    )


@pytest.mark.parametrize("word", ["partitions=[-1]", "from_offset=-1", "events_per_file=0", "events_per_file=10000001"])
def test_a_number_out_of_range_is_refused(word: str):
    with pytest.raises(SettingsError, match="Dump cannot be set so"):
        load_config(Dump, overrides=[word], out="log")


def test_the_outcome_says_what_came_what_is_malformed_and_what_kafka_dropped():
    folder = Path("log")
    whole = Outcome(out=folder, events=1234, malformed=5, files=2, dropped=("offsets 0 to 4 of partition 1",))
    assert whole.lines() == [
        "1,234 events in 2 new files in log",
        "5 malformed events besides, with reasons, in log/malformed-*.jsonl",
        "Kafka does not hold any more (retention), nor does log: offsets 0 to 4 of partition 1",
    ]
    nothing = Outcome(out=folder, events=0, malformed=0, files=0, dropped=())
    assert nothing.lines() == ["nothing new: log covers every event of the range that Kafka holds"]
