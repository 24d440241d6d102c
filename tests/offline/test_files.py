import errno
import fcntl
import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from models.errors import SettingsError
from offline import files
from offline.files import check_replaceable, locked, new_file, new_folder, write_json, writing
from tests.offline import kills


def test_a_folder_appears_whole_in_the_place_of_the_old_one(tmp_path):
    out = tmp_path / "out"
    for text in ("old", "new"):
        with new_folder(out) as folder:
            (folder / "file").write_text(text)
            assert out.exists() == (text == "new")
    assert (out / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_fails_leaves_the_old_one_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "file").write_text("old")
    with suppress(RuntimeError), new_folder(out) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert (out / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_job_left_is_tidied_away_and_nothing_of_others(tmp_path):
    (tmp_path / ".out.partial-killed" / "new").mkdir(parents=True)
    (tmp_path / ".out-of-others").mkdir()
    with new_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out-of-others", "out"]


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_kill_at_any_line_of_a_replacement_leaves_the_old_folder_or_the_new_one(tmp_path, way):
    run = [sys.executable, "-m", kills.__name__, str(tmp_path), way]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], timeout=120)
    children = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(children) > 40
    old, aside = ["0", "0"], 0
    for child in children:
        new = [str(child["number"])] * 2
        assert child["then"] in (old, new)
        assert set(child["there"]) <= {"release", ".release.lock"}
        aside += not child["left"]
        assert child["left"] in (child["then"], [])
        old = child["then"]
    assert old == [str(children[-1]["number"])] * 2
    assert aside == (1 if way == "renames" else 0)  # between the two renames it stands aside, until the next run


def test_an_error_between_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", kills.no_exchange)
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("old")
    rename = Path.rename

    def fail(path, target):
        if (path.name, Path(target).name) == ("new", "out"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"), new_folder(out) as folder:
        (folder / "file").write_text("new")
    assert (out / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_draft_that_holds_the_only_old_folder_is_not_removed_when_it_cannot_be_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", kills.no_exchange)
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("old")
    rename = Path.rename

    def fail(path, target):
        if Path(target) == out:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return rename(path, target)

    with monkeypatch.context() as lost:
        lost.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="Input/output error"), new_folder(out) as folder:
            (folder / "file").write_text("new")
    assert not out.exists()
    with suppress(RuntimeError), new_folder(out):
        raise RuntimeError  # the mount is there again, and the next run fails for another reason
    assert (out / "file").read_text() == "old"


@contextmanager
def another_run(lock):
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("write", [new_folder, new_file])
def test_two_runs_do_not_write_one_place_and_the_second_hears_so(tmp_path, write):
    out = tmp_path / "out"
    mine = tmp_path / ".out.partial-of-the-first-run"
    mine.mkdir()
    with another_run(tmp_path / ".out.lock"):
        with pytest.raises(SettingsError, match=f"^another run is writing {out}; wait for its end, or name another"):
            write(out).__enter__()
        with pytest.raises(SettingsError, match="another run is writing"):
            check_replaceable(out, "ours.json")
        assert mine.exists()
    with write(out) as draft:
        draft.touch()
        assert not mine.exists()  # now its run has ended
        with pytest.raises(SettingsError, match="another run is writing"):
            write(out).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_locked_until_its_run_ends_however_that_ends(tmp_path):
    out = tmp_path / "deep" / "out"
    script = """
import os, sys
from pathlib import Path
from offline.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
    run = [sys.executable, "-c", script, str(out)]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"locked\n"
        with pytest.raises(SettingsError, match="another run is writing"), locked(out):
            pass
        first.kill()
        assert first.wait(30)
    with locked(out):
        assert (out / ".lock").exists()
    assert not list(out.iterdir())


def test_a_lock_whose_file_was_removed_while_it_was_taken_is_taken_anew(tmp_path, monkeypatch):
    lock, flock = tmp_path / ".lock", fcntl.flock

    def late(descriptor, operation):
        flock(descriptor, operation)
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()  # by the run that held it until now

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert lock.exists()
        with pytest.raises(SettingsError, match="another run is writing"), locked(tmp_path):
            pass


def test_a_full_disk_leaves_the_old_folder_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("old")
    script = """
import resource, sys
from pathlib import Path
from models.errors import SettingsError
from offline.files import new_file, new_folder, writing
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
out = Path(sys.argv[1])
for place, write in ((out, new_folder), (out / "file", new_file)):
    try:
        with writing(place), write(place) as draft:
            (draft / "file" if draft.is_dir() else draft).write_bytes(bytes(2000))
    except SettingsError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{place} cannot be written (File too large); make room, and run this again" for place in (out, out / "file")
    ]
    assert (out / "file").read_text() == "old"
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/file"]


def test_json_is_written_for_people(tmp_path):
    write_json(tmp_path / "file", {"b": [1, None], "a": "ä"})
    assert (tmp_path / "file").read_text() == '{\n  "b": [\n    1,\n    null\n  ],\n  "a": "ä"\n}\n'


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with suppress(RuntimeError), new_file(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with new_file(path) as draft:
        draft.write_text("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "whole")]


def test_files_of_something_else_are_not_replaceable(tmp_path):
    check_replaceable(tmp_path / "missing", "ours.json")
    check_replaceable(tmp_path, "ours.json")
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(SettingsError, match="holds files of something else; name a new folder"):
            check_replaceable(place, "ours.json")
    (tmp_path / "ours.json").touch()
    check_replaceable(tmp_path, "ours.json")


def test_a_disk_that_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError) as raised, writing(tmp_path / "file", ": it goes on"):
        os.mkdir(tmp_path / "file" / "folder")  # noqa: PTH102
    assert str(raised.value) == (
        f"{tmp_path}/file/folder cannot be written (Not a directory); make room, and run this again: it goes on"
    )
