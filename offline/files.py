"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
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
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; at the end it is on the disk and takes the name `out`, in the place of what was there."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
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
