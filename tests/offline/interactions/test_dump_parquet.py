import base64
import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from models.errors import EventError, SettingsError
from models.events import Forgotten, Listen, TrackCorrected, decode_event, encode_event
from offline.genre.corrections import read_corrections
from offline.interactions.dump_folder import Span, held, publish, tidy
from offline.interactions.dump_parquet import malformed_line
from offline.interactions.left_out import read_forgotten
from tests.offline.interactions.small_topics import YEAR_2023_MS, Record, Topic, files_of, listen


def test_a_file_holds_the_events_in_the_columns_of_a_log(tmp_path: Path):
    whole = [
        listen(0),
        listen(1, kind="like", played_ms=None, duration_ms=None),
        listen(2, track_id="Ünïcødé\0", excluded=True),
    ]
    topic = Topic([Record(event.at - YEAR_2023_MS, 5, encode_event(event)) for event in whole], end=3)
    publish(tmp_path, next(files_of(topic, Span(0, 3))))
    (path,) = tmp_path.iterdir()
    assert [Listen(**row) for row in pl.read_parquet(path).rows(named=True)] == whole
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert pl.read_parquet(path).schema == {
        **{"user_id": pl.String, "track_id": pl.String, "at": pl.Int64, "event_id": pl.String, "kind": pl.String},
        **{"played_ms": pl.Int64, "duration_ms": pl.Int64, "excluded": pl.Boolean},
    }


def test_who_was_forgotten_is_dumped_in_columns_of_its_own(tmp_path: Path):
    forgotten = [
        Forgotten(kind="user", id="u1", forgotten_at=YEAR_2023_MS),
        Forgotten(kind="track", id="t1", forgotten_at=YEAR_2023_MS + 7),
    ]
    values = [*map(encode_event, forgotten), encode_event(listen(2)), None]
    topic = Topic([Record(offset, 5, value) for offset, value in enumerate(values)], end=4)
    publish(tmp_path, next(files_of(topic, Span(0, 4), name="eu.tastewave.forgotten")))
    stem = "eu.tastewave.forgotten-p00003-000000000000-000000000004"
    assert {path.name for path in tmp_path.iterdir()} == {f"forgotten-{stem}.parquet", f"malformed-{stem}.jsonl"}
    tidy(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert list(held(tmp_path, "eu.tastewave.forgotten")) == [3]
    assert [Forgotten(**row) for row in pl.read_parquet(tmp_path / f"forgotten-{stem}.parquet").rows(named=True)] == (
        forgotten
    )
    assert sorted(read_forgotten(str(tmp_path)).until.rows()) == [
        ("track", "t1", YEAR_2023_MS + 7),
        ("user", "u1", YEAR_2023_MS),
    ]


def test_corrections_are_dumped_and_the_last_one_of_each_track_is_a_label(tmp_path: Path):
    said = [
        TrackCorrected(track_id=track_id, genre=genre, by="ann", at=YEAR_2023_MS + at)
        for track_id, genre, at in [("t1", "ska", 2), ("t1", "dub", 1), ("t2", "dub", 3), ("t2", "ska", 3)]
    ]
    topic = Topic([Record(offset, 5, encode_event(one)) for offset, one in enumerate(said)], end=4)
    for span in (Span(0, 1), Span(1, 4)):
        publish(tmp_path, next(files_of(topic, span, name="eu.tastewave.tracks.corrected")))
    assert len(list(tmp_path.glob("corrected-eu.*.parquet"))) == 2
    assert list(held(tmp_path, "eu.tastewave.tracks.corrected")) == [3]
    rows = [row for path in sorted(tmp_path.iterdir()) for row in pl.read_parquet(path).rows(named=True)]
    assert [TrackCorrected(**row) for row in rows] == said
    assert read_corrections(tmp_path) == {"t1": "ska", "t2": "ska"}
    with pytest.raises(SettingsError, match="no Parquet file"):
        read_corrections(tmp_path / "nothing")
    (path,) = tmp_path.glob("*-000000000000-*.parquet")
    pl.DataFrame({"user_id": ["u"]}).write_parquet(path)
    with pytest.raises(SettingsError, match="dump it again"):
        read_corrections(tmp_path)


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
    monkeypatch.setattr("offline.interactions.dump_parquet._MAX_MALFORMED_BYTES", 1_000_000)
    junk = Topic([Record(offset, 0, b"\xff" * 4096) for offset in range(1000)], end=1000, batch=50)
    files = list(files_of(junk, Span(0, 1000), events_per_file=1_000_000))
    assert len(files) > 4
    assert max(len(file.lines) for file in files) < 1_500_000
    assert sum(file.malformed for file in files) == 1000
