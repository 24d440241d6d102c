"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import SettingsError


def check_replaceable(folder: Path, marker: str) -> None:
    """Raise SettingsError where a folder holds files, and not the one that says that they are ours."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / marker).exists()):
        raise SettingsError(f"{folder} holds files of something else; name a new folder")


@contextmanager
def writing(out: Path, then: str = "") -> Iterator[None]:
    """An OSError becomes a SettingsError that says so, and what another run then does."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or out, error.strerror or error
        raise SettingsError(f"{where} cannot be written ({why}); make room, and run this again{then}") from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; at the end it is on the disk and takes the name `out`, in the place of what was there."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.partial-"
    for left in out.parent.glob(f"{glob.escape(prefix)}*"):  # of one that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent) as scratch:
        folder = Path(scratch, "new")
        folder.mkdir()
        yield folder
        for path in (*folder.rglob("*"), folder):
            sync(path)
        if out.exists():
            out.rename(Path(scratch, "old"))
        folder.rename(out)
        sync(out.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write; at the end it is on the disk and takes the name, in the place of what was there."""
    draft = path.with_name(f".{path.name}.partial")
    try:
        yield draft
        sync(draft)
        draft.rename(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file or folder written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
