import datetime
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import pytest

from models.errors import SettingsError
from models.history import Signal
from offline.interactions import log as interaction_log
from offline.interactions import shards
from offline.interactions.log import read_log, spans

NOW = 1_700_000_000_000


def write(path, rows, **columns):
    pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at"]).with_columns(**columns).write_parquet(path)
    return str(path)


def content(log):
    return [
        (log.users[user], log.tracks[int(log.track[place])], int(log.at[place]), Signal(log.signal[place]))
        for user in range(len(log.users))
        for place in range(log.offsets[user], log.offsets[user + 1])
    ]


def test_listens_stand_by_user_oldest_first(tmp_path):
    rows = [("b", "t2", NOW + 5), ("a", "t1", NOW + 9), ("b", "t1", NOW + 1), ("a", "t9", NOW)]
    log = read_log(write(tmp_path / "log.parquet", rows))
    assert content(log) == [
        ("a", "t9", NOW, Signal.PLAY),
        ("a", "t1", NOW + 9, Signal.PLAY),
        ("b", "t1", NOW + 1, Signal.PLAY),
        ("b", "t2", NOW + 5, Signal.PLAY),
    ]
    assert log.user_of(np.array([0, 1, 2, 3])).tolist() == [0, 0, 1, 1]


def test_a_folder_a_glob_and_a_url_hold_the_same_log(tmp_path):
    write(tmp_path / "1.parquet", [("a", "t1", NOW), ("b", "t1", NOW)])
    write(tmp_path / "2.parquet", [("a", "t2", NOW - 1)])
    (tmp_path / ".half.parquet").write_bytes(b"not yet whole")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "1.parquet"), "/logs/1.parquet")
    memory.put(str(tmp_path / "2.parquet"), "/logs/2.parquet")
    found = {read_log(str(where)).fingerprint for where in (tmp_path, tmp_path / "*.parquet", "memory://logs")}
    assert len(found) == 1


def test_duplicates_count_once_and_are_told(tmp_path):
    rows = [("a", "t1", NOW), ("a", "t1", NOW), ("a", "t2", NOW), ("a", "t1", NOW)]
    log = read_log(write(tmp_path / "log.parquet", rows))
    assert (len(log.track), log.rows, log.duplicates) == (2, 4, 2)


def test_timestamps_and_dictionaries_are_read_too(tmp_path):
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=datetime.UTC)
    frame = pl.DataFrame({"user_id": ["a"], "track_id": ["t"], "at": [moment], "kind": ["like"]})
    frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")), pl.col("kind").cast(pl.Categorical)).write_parquet(
        tmp_path / "log.parquet"
    )
    assert content(read_log(str(tmp_path))) == [("a", "t", 1_704_164_645_678, Signal.LIKE)]


def test_unlike_and_undislike_are_left_out(tmp_path):
    rows = [("a", "t1", NOW), ("a", "t2", NOW), ("a", "t3", NOW)]
    path = write(tmp_path / "log.parquet", rows, kind=pl.Series(["unlike", "like", "undislike"]))
    assert content(read_log(path)) == [("a", "t2", NOW, Signal.LIKE)]


def test_excluded_rows_are_no_part_of_the_log_and_told(tmp_path):
    rows = [("a", "t1", NOW), ("a", "t2", NOW), ("b", "t3", NOW), ("a", "t1", NOW + 1)]
    path = write(tmp_path / "log.parquet", rows, excluded=pl.Series([False, True, True, None]))
    log, without = read_log(path), read_log(write(tmp_path / "other.parquet", [rows[0], rows[3]]))
    assert (log.excluded, log.rows, without.excluded) == (2, 4, 0)
    assert log.fingerprint == without.fingerprint
    assert (log.users.to_list(), log.tracks.to_list()) == (["a"], ["t1"])


def test_excluded_rows_may_stand_in_a_folder_of_their_own(tmp_path):
    for name, track in (("true", "t1"), ("False", "t2")):
        (tmp_path / f"excluded={name}").mkdir()
        write(tmp_path / f"excluded={name}" / "part.parquet", [("a", track, NOW)])
    assert content(read_log(str(tmp_path))) == [("a", "t2", NOW, Signal.PLAY)]
    (tmp_path / "excluded=no").mkdir()
    write(tmp_path / "excluded=no" / "part.parquet", [("a", "t1", NOW)])
    with pytest.raises(SettingsError, match="excluded=no gives excluded, which has to be true or false; rename it"):
        read_log(str(tmp_path))


def test_lengths_are_cut_as_in_the_stream(tmp_path):
    hours = 3_600_000
    path = write(tmp_path / "log.parquet", [("a", "t1", NOW)], played_ms=pl.lit(5 * hours), duration_ms=12 * hours)
    assert content(read_log(path)) == [("a", "t1", NOW, Signal.PLAY)]


def test_a_log_in_many_pieces_is_the_log_in_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [(f"u{rng.integers(40)}", f"t{rng.integers(30)}", NOW + int(rng.integers(1000))) for _ in range(3000)]
    path = write(tmp_path / "log.parquet", rows)
    whole = read_log(path)
    monkeypatch.setattr(interaction_log, "_PART_ROWS", 100)
    monkeypatch.setattr(shards, "_BATCH_ROWS", 170)
    pieces = read_log(path)
    assert pieces.fingerprint == whole.fingerprint
    assert content(pieces) == content(whole)
    assert pieces.duplicates == whole.duplicates > 0


GOOD = [("a", "t1", NOW), ("a", "t2", NOW + 1)]


def at_cast(frame, unit, divisor):
    """Times that were divided, and taken for what they are not."""
    return frame.with_columns((pl.col("at") // divisor).cast(pl.Datetime(unit, "UTC")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop("track_id"), "has no column track_id, only user_id, at; it needs"),
        (lambda frame: frame.with_columns(user_id=pl.Series([1, 2])), "user_id is int64, and has to be text; cast"),
        (lambda frame: frame.with_columns(pl.col("at").cast(pl.Float64)), "at is double, and has to be an integer"),
        (lambda frame: frame.with_columns(pl.col("at") // 1000), "look like seconds; at is in milliseconds"),
        (lambda frame: frame.with_columns(pl.col("at") * 1000), "divide nanoseconds by 1,000,000 and microseconds"),
        (lambda frame: frame.with_columns(pl.col("at") * 10**6), "divide nanoseconds by 1,000,000 and microseconds"),
        (lambda frame: frame.with_columns(at=pl.lit(None, pl.Int64)), "column at is empty in 2 rows; drop them"),
        (lambda frame: frame.with_columns(user_id=pl.lit("")), "ids that are missing, empty or over 256 bytes"),
        (lambda frame: frame.with_columns(track_id=pl.lit("ä" * 129)), "ids that are missing, empty or over 256"),
        (lambda frame: frame.with_columns(track_id=pl.lit(None, pl.String)), "ids that are missing, empty or over"),
        (lambda frame: frame.with_columns(excluded=pl.lit(1)), "excluded is int32, and has to be true or false; cast"),
        (lambda frame: frame.with_columns(kind=pl.lit("love")), "kind 'love' is none of play, skip, like"),
        (lambda frame: frame.with_columns(played_ms=pl.lit(-5)), "played_ms has the value -5; a length is 0 ms"),
        (
            lambda frame: frame.with_columns(duration_ms=pl.lit(2**64 - 1, pl.UInt64)),
            "has the value 18446744073709551615",
        ),
        (
            lambda frame: frame.with_columns(at=pl.Series([NOW // 1000, NOW])),
            "look like seconds; at is in milliseconds",
        ),
        (lambda frame: at_cast(frame, "ms", 1000), "from 1970-01-20 to 1970-01-20 look like seconds; read them with"),
        (lambda frame: at_cast(frame, "us", 1), "from 1970-01-20 to 1970-01-20 look like seconds"),
        (
            lambda frame: at_cast(frame.with_columns(pl.col("at") * 1000), "ns", 1),
            "from 1970-01-20 to 1970-01-20 look like seconds",
        ),
        (
            lambda frame: frame.with_columns(at=pl.lit(datetime.datetime(1, 1, 1), pl.Datetime("us"))),  # noqa: DTZ001
            "from 0001-01-01 to 0001-01-01 are no milliseconds since 1970; drop or mend those rows",
        ),
        (lambda frame: frame.with_columns(at=pl.lit(None, pl.Datetime("ms"))), "column at is empty in 2 rows"),
        (lambda frame: frame.with_columns(pl.col("at").cast(pl.Datetime("ms")).dt.date()), "column at is date32"),
        (lambda frame: frame.clear(), "holds no listen that says anything; name a log with plays"),
    ],
)
def test_a_log_that_cannot_be_right_is_refused_in_one_sentence(tmp_path, change, message):
    frame = pl.DataFrame(GOOD, orient="row", schema=["user_id", "track_id", "at"])
    change(frame).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(SettingsError, match=message) as refused:
        read_log(str(tmp_path / "log.parquet"), scratch=tmp_path)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_no_log_and_half_a_file_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="has no Parquet file; name a"):
        read_log(str(tmp_path / "nothing.parquet"))
    path = tmp_path / "log.parquet"
    write(path, GOOD)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SettingsError, match="is no whole Parquet file"):
        read_log(str(path))
    with pytest.raises(SettingsError, match="cannot be opened"):
        read_log("nowhere://logs")


def test_a_log_of_more_files_than_can_be_open_is_read(tmp_path):
    script = """
import resource, sys
from offline.interactions.log import read_log
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
print(len(read_log(sys.argv[1]).at))
"""
    for number in range(120):
        write(tmp_path / f"{number}.parquet", [("a", "t1", NOW + number)])
    found = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (found.stdout.strip(), found.returncode) == ("120", 0), found.stderr


def test_a_log_that_is_in_use_has_no_file_that_a_kill_could_leave(tmp_path):
    log = read_log(write(tmp_path / "log.parquet", GOOD), scratch=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
    assert isinstance(log.at, np.memmap)
    assert log.at.tolist() == [NOW, NOW + 1]


def test_a_disk_that_is_full_of_arrays_is_one_sentence(tmp_path):
    script = """
import resource, sys
from models.errors import SettingsError
from offline.interactions.log import read_log
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    read_log(sys.argv[1], scratch=Path(sys.argv[2]))
except SettingsError as error:
    print(error)
"""
    path = write(tmp_path / "log.parquet", [("a", "t1", NOW + number) for number in range(5000)])
    (tmp_path / "job").mkdir()
    run = [sys.executable, "-c", script, path, str(tmp_path / "job")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"{tmp_path}/job cannot be written (File too large); make room for 165,000 bytes, and run this again\n"
    )
    assert not list((tmp_path / "job").iterdir())


@pytest.mark.parametrize("times", [3, 5])
def test_a_log_that_mostly_repeats_itself_is_refused(tmp_path, times):
    paths = [write(tmp_path / f"{number}.parquet", GOOD) for number in range(times)]
    with pytest.raises(
        SettingsError, match=f"^{2 * times - 2} of the {2 * times} rows of .* are the same listen again"
    ):
        read_log(str(tmp_path))
    for path in paths[2:]:
        Path(path).unlink()
    assert read_log(str(tmp_path)).duplicates == 2  # a log that was copied once is what it was


def test_spans_are_laid_end_to_end():
    rows, positions = spans(np.array([3, 9, 5]), np.array([5, 9, 8]))
    assert rows.tolist() == [0, 0, 2, 2, 2]
    assert positions.tolist() == [3, 4, 5, 6, 7]
