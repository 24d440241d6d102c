import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.progress import Progress

from models.errors import ReleaseError, SettingsError
from models.sealed_folder import load_sealed
from offline.spread import MOST_DEATHS, SHARD, SpreadFailed, seal, spread
from tests.offline import small_works
from tests.offline.small_works import Work, shards

ROOT = Path(__file__).parents[2]


def run(folder: Path, how: str, *, count: int, processes: int = 2) -> list[str]:
    notes, out = folder / "notes", folder / "out"
    notes.mkdir(exist_ok=True)
    return spread(
        Work(notes, how), shards(count), out=out, progress=Progress(disable=True), label="Adding", processes=processes
    )


def start(folder: Path, how: str, *, count: int) -> subprocess.Popen[str]:
    """The same in a process group of its own, as a shell starts it."""
    (folder / "notes").mkdir(exist_ok=True)
    words = [sys.executable, "-m", small_works.__name__, str(folder / "out"), str(folder / "notes"), how, str(count)]
    return subprocess.Popen(words, cwd=ROOT, process_group=0, stderr=subprocess.PIPE, text=True)


def sums(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in (folder / "out").glob("*/sum")}


def notes(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / "notes").glob(f"{kind}-*"))


def wait_for(condition: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_shard_comes_to_a_sealed_folder_made_by_other_processes(tmp_path):
    assert run(tmp_path, "plainly", count=5) == []
    assert sums(tmp_path) == {"00": "10", "01": "11", "02": "12", "03": "13", "04": "14"}
    pids = {path.read_text() for path in (tmp_path / "out").glob("*/pid")}
    assert len(pids) == 2
    assert str(os.getpid()) not in pids
    assert not any(is_alive(int(pid)) for pid in pids)


def test_a_damaged_shard_is_noticed(tmp_path):
    run(tmp_path, "plainly", count=1)
    shard = tmp_path / "out" / "00"
    assert set(load_sealed(shard, SHARD, make=lambda manifest, _: manifest).files) == {"sum", "pid"}
    (shard / "sum").write_text("11")
    with pytest.raises(ReleaseError, match="00/sum is not the file that the manifest describes"):
        load_sealed(shard, SHARD, make=lambda manifest, _: manifest)


def test_no_more_shards_are_in_hand_than_there_are_processes(tmp_path):
    run(tmp_path, "plainly", count=8, processes=3)
    moments = [(float(path.read_text()), 1) for path in notes(tmp_path, "begun")]
    moments += [(float(path.read_text()), -1) for path in notes(tmp_path, "ended")]
    at_once = most = 0
    for _, step in sorted(moments):
        at_once += step
        most = max(most, at_once)
    assert (len(moments), at_once) == (16, 0)
    assert 2 <= most <= 3


def test_what_is_sealed_is_not_done_again(tmp_path):
    seal(tmp_path / "out" / "01", {"sum": b"of another run"})
    run(tmp_path, "plainly", count=3)
    assert sums(tmp_path) == {"00": "10", "01": "of another run", "02": "12"}
    assert len(notes(tmp_path, "begun")) == 2


def test_a_process_that_dies_is_replaced_and_its_shard_done_again(tmp_path):
    assert run(tmp_path, "dies_the_first_time", count=5) == []
    assert sums(tmp_path) == {"00": "10", "01": "11", "02": "12", "03": "13", "04": "14"}
    assert (len(notes(tmp_path, "begun")), len(notes(tmp_path, "ended"))) == (10, 5)


def test_a_shard_that_kills_its_processes_is_given_up_and_the_others_are_done(tmp_path):
    assert run(tmp_path, "dies_at_two", count=5) == ["02"]
    assert sums(tmp_path).keys() == {"00", "01", "03", "04"}
    assert len(notes(tmp_path, "begun-2")) == MOST_DEATHS == 3


def test_shards_that_all_kill_their_processes_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("offline.spread._GIVEN_UP_IN_A_ROW", 2)
    with pytest.raises(SpreadFailed, match="2 shards in a row killed 3 processes each; look for a lack of memory"):
        run(tmp_path, "dies", count=50, processes=1)
    assert len(notes(tmp_path, "begun")) == 2 * 3


def test_an_error_of_ours_ends_the_run_as_it_is_and_a_bug_with_its_traceback(tmp_path):
    with pytest.raises(SettingsError, match="put the same one on all machines"):
        run(tmp_path, "refuses", count=3)
    with pytest.raises(RuntimeError, match=r"(?s)in stumbles.*ZeroDivisionError: a bug of the work"):
        run(tmp_path, "stumbles", count=3)


def test_a_work_has_one_thread(tmp_path):
    run(tmp_path, "tells_its_threads", count=1)
    assert [path.read_text() for path in notes(tmp_path, "threads")] == ["{1}"]


def test_a_run_that_is_killed_leaves_no_process_and_the_next_one_goes_on(tmp_path):
    killed = start(tmp_path, "waits_after_the_first", count=6)
    wait_for(lambda: sums(tmp_path) and len(notes(tmp_path, "begun")) == 3)
    working = [int(path.name.rpartition("-")[2]) for path in notes(tmp_path, "begun")]
    assert sum(map(is_alive, set(working))) == 2
    killed.kill()
    killed.wait()
    wait_for(lambda: not any(map(is_alive, working)))
    (tmp_path / "notes" / "go").touch()
    assert run(tmp_path, "waits_after_the_first", count=6) == []
    assert sums(tmp_path) == {f"{number:02d}": f"{number + 10}" for number in range(6)}
    begun = [int(path.name.split("-")[1]) for path in notes(tmp_path, "begun")]
    assert begun == [0, 1, 1, 2, 2, 3, 4, 5]  # the two in hand are done again, and the sealed one is not


def test_ctrl_c_ends_all_processes_without_a_word_from_them(tmp_path):
    interrupted = start(tmp_path, "waits_after_the_first", count=6)
    wait_for(lambda: len(notes(tmp_path, "begun")) == 3)
    working = [int(path.name.rpartition("-")[2]) for path in notes(tmp_path, "begun")]
    os.killpg(interrupted.pid, signal.SIGINT)
    _, said = interrupted.communicate(timeout=30)
    assert said.count("Traceback") == said.count("KeyboardInterrupt") == 1, said
    assert not any(map(is_alive, working))


def test_ray_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"ray is not installed here; install tastewave\[ray\]"):
        spread(Work(tmp_path), shards(1), out=tmp_path / "out", progress=Progress(disable=True), label="", ray="auto")
