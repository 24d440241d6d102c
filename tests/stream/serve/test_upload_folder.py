"""The folder of uploads: files are there whole or not at all, and their number and bytes are bounded."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.errors import SettingsError
from stream.serve import upload_folder as module
from stream.serve.upload_folder import NoRoom, UploadFolder


def put(folder: UploadFolder, text: bytes = b"sound") -> Path:
    with folder.begin(".wav", size_bytes=len(text)) as coming:
        coming.write(text)
        return coming.finish()


def age(path: Path, seconds: float) -> None:
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path)
    with folder.begin(".wav", size_bytes=100) as coming:
        coming.write(b"half")
        assert not list(tmp_path.glob("*.wav"))
    assert list(tmp_path.iterdir()) == []
    path = put(folder)
    assert (path.read_bytes(), path.suffix, path.parent) == (b"sound", ".wav", tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_oldest_make_room_and_nothing_else_in_the_folder_does(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    other = tmp_path / "precious.wav"
    other.write_bytes(b"x" * 200)
    age(other, 10_000_000)
    folder = UploadFolder(tmp_path)
    kept = [put(folder) for _ in range(3)]
    for number, path in enumerate(kept):
        age(path, 3600 * (9 - number))
    fourth = put(folder)
    assert {*tmp_path.iterdir()} == {other, *kept[1:], fourth}
    fifth = put(folder, b"y" * 91)  # by its bytes, one of 5 may stay
    assert {*tmp_path.iterdir()} == {other, fourth, fifth}
    with pytest.raises(NoRoom, match="came in the last minutes"):
        put(folder, b"z" * 90)
    assert {*tmp_path.iterdir()} == {other, fourth, fifth}


def test_what_a_killed_process_has_left_goes_some_time_later(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path)
    old, young = folder.begin(".wav", size_bytes=1), folder.begin(".wav", size_bytes=1)
    (left,) = (path for path in tmp_path.iterdir() if old._part == path)
    age(left, 3600)
    put(folder)
    assert left not in (names := {*tmp_path.iterdir()})
    assert young._part in names


def test_a_disk_that_is_full_is_said_and_nothing_stays(tmp_path: Path, monkeypatch) -> None:
    folder = UploadFolder(tmp_path)
    with folder.begin(".wav", size_bytes=10_000_000) as coming:
        coming._file.close()
        coming._file = Path("/dev/full").open("wb")  # noqa: SIM115 - Coming closes it
        with pytest.raises(NoRoom, match=os.strerror(errno.ENOSPC)):
            coming.write(b"x" * 10_000_000)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=module.SPARE_BYTES + 4))
    with pytest.raises(NoRoom, match="almost full"):
        put(folder)
    put(folder, b"four")


def test_a_folder_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"TASTEWAVE_SERVE_UPLOADS: .*missing is no folder"):
        UploadFolder(tmp_path / "missing")
