import errno
import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.interactions.dump_folder import DumpFailed, LogFile, Span, gaps, held, publish, tidy
from offline.interactions.dump_parquet import log_files
from tests.offline.interactions.small_topics import TOPIC, Topic, files_of, record


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


@settings(max_examples=80)
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


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = next(files_of(Topic([record(0), record(1, malformed=True)], end=2), Span(0, 2)))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        publish(tmp_path, file)
    assert names(tmp_path) == []
