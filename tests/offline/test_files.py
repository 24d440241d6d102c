import os
from contextlib import suppress

import pytest

from models.errors import SettingsError
from offline.files import check_replaceable, new_file, new_folder, writing


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
