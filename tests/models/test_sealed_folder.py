"""What every sealed folder keeps to, on a kind of folder of this test; tests/models/test_release.py has the details."""

import gc
import hashlib
import json
import subprocess
import sys
import weakref
from dataclasses import dataclass
from errno import EIO
from pathlib import Path

import fsspec
import msgspec
import pytest

from models import sealed_folder
from models.errors import ReleaseError
from models.sealed_folder import (
    SealedFile,
    SealedKind,
    describe_file,
    describe_files,
    load_sealed,
)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    files: dict[str, SealedFile]


@dataclass(eq=False)
class Song:
    """What the folder of this test holds: the text, and where it was read."""

    text: str
    folder: Path


def decode(content: bytes, _: str) -> Manifest:
    return msgspec.json.decode(content, type=Manifest)


def check(manifest: Manifest, shown: str) -> None:
    if manifest.name != "song":
        raise ReleaseError(f"{shown} is no song")


def make(manifest: Manifest, folder: Path) -> Song:
    return Song("".join((folder / name).read_text() for name in manifest.files), folder)


SONG = SealedKind(what="a song", manifest="song.json", decode=decode, check=check, advice="sing it again")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "song"
    folder.mkdir()
    (folder / "verse.txt").write_text("la la ")
    (folder / "chorus.txt").write_text("oh ")
    manifest = Manifest(name="song", files=describe_files(folder))
    (folder / "song.json").write_bytes(msgspec.json.encode(manifest))
    return folder


def at_url(folder: Path, name: str) -> str:
    fsspec.filesystem("memory").put(str(folder), f"/{name}", recursive=True)
    return f"memory://{name}"


def test_a_manifest_gives_size_and_sha_256_of_every_file_by_name(folder: Path) -> None:
    manifest = (folder / "song.json").read_text()
    assert json.loads(manifest) == {
        "name": "song",
        "files": {
            "chorus.txt": {"sha256": hashlib.sha256(b"oh ").hexdigest(), "bytes": 3},
            "verse.txt": {"sha256": hashlib.sha256(b"la la ").hexdigest(), "bytes": 6},
        },
    }
    assert list(describe_files(folder)) == ["chorus.txt", "song.json", "verse.txt"]
    assert describe_file(folder / "verse.txt").bytes == 6


def test_what_was_sealed_is_loaded_from_where_it_is(folder: Path) -> None:
    for where in (folder, str(folder)):
        song = load_sealed(where, SONG, make=make)
        assert song.text == "oh la la "
        assert song.folder == folder


@pytest.mark.parametrize("where", ["folder", "url"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "verse.txt").write_text("la lo "), "verse.txt is not the file that the manifest"),
        (lambda folder: (folder / "verse.txt").write_text("la la la"), "verse.txt is not the file that the manifest"),
        (lambda folder: (folder / "song.json").write_text("{}"), "cannot be read .*; sing it again"),
        (lambda folder: (folder / "song.json").write_text('{"name":"poem","files":{}}'), "is no song"),
        (lambda folder: (folder / "song.json").write_bytes(b" " * (2**20 + 1)), "over 1048576 bytes"),
        (
            lambda folder: (folder / "song.json").write_text(
                (folder / "song.json").read_text().replace("verse.txt", "../verse.txt")
            ),
            "'../verse.txt', which is not a plain name",
        ),
    ],
)
def test_nothing_of_a_folder_that_was_changed_is_used(folder: Path, where: str, change, said: str) -> None:
    change(folder)
    name = "changed-" + hashlib.sha256(said.encode() + (folder / "verse.txt").read_bytes()).hexdigest()
    place = str(folder) if where == "folder" else at_url(folder, name)

    def never(*_: object) -> Song:
        raise AssertionError("it was opened")

    with pytest.raises(ReleaseError, match=said) as error:
        load_sealed(place, SONG, make=never)
    assert "tastewave-" not in str(error.value)


def test_a_missing_folder_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"no readable song\.json .*; name the folder of a song"):
        load_sealed(tmp_path, SONG, make=make)
    with pytest.raises(ReleaseError, match=r"memory://nothing cannot be read .*; name the folder of a song"):
        load_sealed("memory://nothing", SONG, make=make)


def test_a_copy_is_gone_with_what_was_made_of_it(folder: Path) -> None:
    song = load_sealed(at_url(folder, "kept"), SONG, make=make)
    copy = song.folder
    assert copy != folder
    assert (copy / "verse.txt").read_text() == "la la "
    gone = weakref.ref(song)
    del song
    gc.collect()
    assert gone() is None
    assert not copy.exists()


def test_a_copy_is_gone_where_nothing_was_made_of_it(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sealed_folder.tempfile, "tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()

    def broken(*_: object) -> Song:
        raise ReleaseError("out of tune")

    with pytest.raises(ReleaseError, match="out of tune"):
        load_sealed(at_url(folder, "broken"), SONG, make=broken)
    assert list((tmp_path / "copies").iterdir()) == []


def test_no_more_is_copied_than_the_manifest_says(folder: Path, tmp_path: Path, monkeypatch) -> None:
    url = at_url(folder, "grown")
    with fsspec.open(f"{url}/verse.txt", "wb") as file:
        file.write(b"la" * 10_000_000)
    monkeypatch.setattr(sealed_folder.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(sealed_folder.tempfile, "tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    with pytest.raises(ReleaseError, match=r"verse\.txt is not the file"):
        load_sealed(url, SONG, make=make)
    (copy,) = (tmp_path / "copies").glob("*/verse.txt")
    assert copy.stat().st_size == 7  # one more than it may have, which tells that it has too many


def test_importing_it_is_light() -> None:
    code = "import sys, models.sealed_folder; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()).isdisjoint({"numpy", "fsspec", "onnxruntime"})


def test_a_disk_that_fails_while_a_file_is_verified_is_one_sentence(folder: Path, monkeypatch) -> None:
    def fail(path: Path) -> SealedFile:
        raise OSError(EIO, "Input/output error", str(path))

    monkeypatch.setattr(sealed_folder, "describe_file", fail)
    with pytest.raises(ReleaseError, match=r"/chorus\.txt cannot be read \(Input/output error\); mend the disk$"):
        load_sealed(folder, SONG, make=make)
