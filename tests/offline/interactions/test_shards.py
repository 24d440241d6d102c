import gzip
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from models.errors import SettingsError
from models.history import Signal
from offline.interactions.log import read_log
from offline.interactions.shards import find_shards

NOW = 1_700_000_000_000
LISTENS = pl.DataFrame({"user_id": ["a", "b"], "track_id": ["t1", "t2"], "at": [NOW, NOW + 1]})


def write(path: Path, listens: pl.DataFrame = LISTENS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    listens.write_parquet(path)
    return path


def names(where: object) -> list[str]:
    return [Path(shard.path).name for shard in find_shards(str(where))[0]]


def content(where: object) -> list[tuple[str, str, int, Signal]]:
    log = read_log(str(where))
    return [
        (log.users[user], log.tracks[int(log.track[place])], int(log.at[place]), Signal(log.signal[place]))
        for user in range(len(log.users))
        for place in range(log.offsets[user], log.offsets[user + 1])
    ]


def test_columns_that_stand_in_the_names_of_folders_are_read(tmp_path: Path):
    write(tmp_path / "kind=skip" / "part-0.parquet")
    write(tmp_path / "kind=like" / "day=2023-11-14" / "part-0.parquet", LISTENS.with_columns(pl.col("at") + 10))
    write(tmp_path / "kind=__HIVE_DEFAULT_PARTITION__" / "part-0.parquet", LISTENS.with_columns(pl.col("at") + 20))
    expected = [
        *((("a", "t1", NOW + later, signal)) for later, signal in
          ((0, Signal.SKIP), (10, Signal.LIKE), (20, Signal.PLAY))),
        *((("b", "t2", NOW + 1 + later, signal)) for later, signal in
          ((0, Signal.SKIP), (10, Signal.LIKE), (20, Signal.PLAY))),
    ]  # fmt: skip
    assert content(tmp_path) == expected
    assert content(tmp_path / "*" / "**" / "*.parquet") == expected
    assert {signal for *_, signal in content(tmp_path / "kind=skip")} == {Signal.SKIP}
    assert {signal for *_, signal in content(tmp_path / "kind=skip" / "part-0.parquet")} == {Signal.SKIP}


def test_what_polars_writes_in_partitions_is_what_it_wrote_from(tmp_path: Path):
    listens = pl.DataFrame(
        {
            "user_id": ["a/b", "a/b", "ü c", "d=e"],
            "track_id": ["t1", "t2", "t1", "t3"],
            "at": [NOW, NOW + 1, NOW + 2, NOW + 3],
            "kind": ["play", "skip", "like", "play"],
            "played_ms": [1_000, 180_000, None, 90_000],
            "duration_ms": [180_000, 180_000, None, 180_000],
        }
    )
    write(tmp_path / "one" / "log.parquet", listens)
    listens.write_parquet(tmp_path / "many", partition_by=["user_id", "kind", "duration_ms"], mkdir=True)
    assert len(names(tmp_path / "many")) == 4
    assert read_log(str(tmp_path / "many")).fingerprint == read_log(str(tmp_path / "one")).fingerprint


def test_a_log_may_have_nothing_in_its_files_but_times(tmp_path: Path):
    write(tmp_path / "user_id=a" / "track_id=t" / "0.parquet", LISTENS.select("at"))
    write(tmp_path / "user_id=b" / "track_id=t" / f"at={NOW}" / "0.parquet", pl.DataFrame({"day": ["2023-11-14"]}))
    assert content(tmp_path) == [
        ("a", "t", NOW, Signal.PLAY),
        ("a", "t", NOW + 1, Signal.PLAY),
        ("b", "t", NOW, Signal.PLAY),
    ]


@pytest.mark.parametrize(
    ("folder", "listens", "message"),
    [
        (
            "kind=skip",
            LISTENS.with_columns(kind=pl.lit("play")),
            "column kind has other values than the kind=skip that",
        ),
        ("kind=hum", LISTENS, "kind 'hum' is none of play, skip"),
        ("played_ms=long", LISTENS, "the folder played_ms=long gives played_ms, which has to be an integer"),
        ("user_id=", LISTENS.drop("user_id"), "column user_id has ids that are missing, empty"),
        ("user_id=__HIVE_DEFAULT_PARTITION__", LISTENS.drop("user_id"), "column user_id has ids that are missing"),
        ("at=1700000000", LISTENS.drop("at"), "look like seconds"),
        ("x=1", LISTENS.drop("at"), "has no column at, only user_id, track_id; it needs user_id, track_id, at"),
    ],
)
def test_names_of_folders_that_cannot_be_right_are_refused(tmp_path, folder, listens, message):
    write(tmp_path / folder / "0.parquet", listens)
    with pytest.raises(SettingsError, match=message):
        read_log(str(tmp_path))


def test_files_of_every_parquet_name_are_read(tmp_path: Path):
    for name in ("a.parquet", "b.pq", "c.parq", "D.PARQUET", "e.snappy.parquet", "f[1].parquet"):
        write(tmp_path / name)
    assert names(tmp_path) == ["D.PARQUET", "a.parquet", "b.pq", "c.parq", "e.snappy.parquet", "f[1].parquet"]
    assert names(tmp_path / "*.p*q*") == ["a.parquet", "b.pq", "c.parq", "e.snappy.parquet", "f[1].parquet"]
    assert names(tmp_path / "f[1].parquet") == ["f[1].parquet"]
    assert names(tmp_path / "[ab].p*") == ["a.parquet", "b.pq"]


def test_folders_with_brackets_and_linked_ones_are_read_once(tmp_path: Path):
    write(tmp_path / "logs[2023]" / "deep" / "0.parquet")
    write(tmp_path / "elsewhere" / "1.parquet", LISTENS.with_columns(pl.col("at") + 1))
    (tmp_path / "logs[2023]" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "logs[2023]" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "logs[2023]" / "deep" / "up").symlink_to(tmp_path / "logs[2023]")
    (tmp_path / "logs[2023]" / "deep" / "2.parquet").symlink_to(tmp_path / "elsewhere" / "1.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "logs[2023]")
    for where in ("logs[2023]", "link", "l*", "logs[2023]/*"):
        assert len(names(tmp_path / where)) == 2, where
        assert read_log(str(tmp_path / where)).rows == 4, where
    assert names(tmp_path / "logs[2023]" / "*" / "0.par*") == ["0.parquet"]


def test_what_begins_with_an_underscore_or_a_dot_is_left_out_and_told_where_it_may_hold_listens(tmp_path: Path, capsys):
    write(tmp_path / "0.parquet")
    write(tmp_path / "_day=2023" / "1.parquet", LISTENS.with_columns(pl.col("at") + 1))
    for name in ("_temporary/0/2.parquet", ".old/3.parquet", ".half.parquet", "_half.pq"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not whole")
    for name in ("_SUCCESS", ".0.parquet.crc", "_delta_log/00.json", ".dump.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes [1].txt").touch()
    expected = [".half.parquet", ".old/3.parquet", "_half.pq", "_temporary/0/2.parquet", "notes [1].txt"]
    found, left_out = find_shards(str(tmp_path))
    assert [Path(shard.path).name for shard in found] == ["0.parquet", "1.parquet"]
    assert left_out == [f"{tmp_path}/{name}" for name in expected]
    assert len(read_log(str(tmp_path)).at) == 4
    told = capsys.readouterr().err
    assert told.startswith("left out of the log, as they are not named as Parquet or their names begin with _ or .: ")
    assert told.endswith(f"{tmp_path}/_half.pq and 2 more\n")


def test_what_is_named_itself_is_read_even_if_it_is_hidden(tmp_path: Path):
    write(tmp_path / "_old" / ".log.parquet")
    assert names(tmp_path / "_old" / ".log.parquet") == [".log.parquet"]
    write(tmp_path / "_old" / "log.parquet")
    assert names(tmp_path / "_old") == ["log.parquet"]
    assert names(tmp_path / "_old" / "*.parquet") == ["log.parquet"]
    with pytest.raises(SettingsError, match="has no Parquet file"):
        names(tmp_path / "*")


JSON_LINES = """\
{"user_id":"007","track_id":"1","at":1700000000000}
{"user_id":"8","track_id":"2","at":1700000000001}
"""
CSV = "user_id,track_id,at\n007,1,1700000000000\n8,2,1700000000001\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", CSV),
        ("log of ann's.csv", CSV),
        ("log.csv.gz", CSV),
        ("log.tsv", CSV.replace(",", "\t")),
        ("log.jsonl", JSON_LINES),
        ("log.ndjson", JSON_LINES),
    ],
    ids=lambda given: given if "." in given and len(given) < 20 else "",
)
def test_a_log_of_text_is_refused_in_a_sentence_whose_command_converts_it(tmp_path: Path, name: str, text: str):
    path = tmp_path / "logs" / name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for where in (path, path.parent):
        with pytest.raises(SettingsError, match="is no Parquet, which a log is made of") as refused:
            read_log(str(where))
    said = str(refused.value)
    command, out = re.fullmatch(r".* with `python (-c .*)`, and run this again with (.*)", said).groups()  # type: ignore[union-attr]
    subprocess.run([sys.executable, *shlex.split(command)], check=True)
    assert content(out) == content(path.parent) == [
        ("007", "1", NOW, Signal.PLAY),
        ("8", "2", NOW + 1, Signal.PLAY),
    ]  # fmt: skip


def test_a_folder_of_nothing_that_is_known_says_what_is(tmp_path: Path):
    (tmp_path / "log.xlsx").touch()
    with pytest.raises(
        SettingsError, match=r"has no Parquet file; name a file ending in .parquet, .parq, .pq, a folder"
    ):
        find_shards(str(tmp_path))


@pytest.mark.parametrize("opens", [0, 1, 2])
def test_a_mount_that_is_lost_while_the_log_is_read_is_one_sentence(tmp_path, monkeypatch, opens: int):
    fsspec.filesystem("memory").pipe("/lost/log.parquet", write(tmp_path / "log.parquet").read_bytes())
    open_it, calls = MemoryFileSystem._open, []

    def lost(*args, **options):
        calls.append(args)
        if len(calls) > opens:
            raise OSError(5, "Input/output error")
        return open_it(*args, **options)

    monkeypatch.setattr(MemoryFileSystem, "_open", lost)
    with pytest.raises(
        SettingsError, match=r"log.parquet cannot be read \(.*Input/output error\); mend it or leave it out"
    ):
        read_log("memory://lost", scratch=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path):
    write(tmp_path / "0.parquet")
    users = [f"u{number:05}" for number in range(5000)]
    big, bad = pa.table({"user_id": users, "track_id": users, "at": range(NOW, NOW + 5000)}), tmp_path / "1.parquet"
    pq.write_table(big, bad, write_page_checksum=True, compression="none")
    bad.write_bytes(bad.read_bytes().replace(b"u02000", b"u0200x"))
    with pytest.raises(SettingsError, match=r"1\.parquet cannot be read \(") as refused:
        read_log(str(tmp_path))
    assert "\n" not in str(refused.value)
    bad.unlink()
    (tmp_path / "2.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"2\.parquet cannot be read \("):
        read_log(str(tmp_path))


def test_text_that_is_no_utf_8_is_refused(tmp_path: Path):
    raw = pa.array([b"\xff\xfe", b"ok"], pa.binary())
    ids = pa.StringArray.from_buffers(2, *raw.buffers()[1:])
    pq.write_table(pa.table({"user_id": ids, "track_id": ["t", "t"], "at": [NOW, NOW]}), tmp_path / "log.parquet")
    with pytest.raises(SettingsError, match=r"cannot be read \(.*UTF8.*\); mend it"):
        read_log(str(tmp_path))
