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
    """Check that a job may replace a folder: it is missing, empty, or holds the file that marks it as the job's own.

    Example:
        check_replaceable(Path("releases/2026-11"), "manifest.json")

    Raises:
        SettingsError: it holds something else, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / marker).exists()):
        raise SettingsError(f"{folder} holds files of something else; name a new folder")


@contextmanager
def writing(out: Path, then: str = "") -> Iterator[None]:
    """Turn an OSError into one sentence of advice.

    Example:
        with writing(out, ": the training goes on from its last validation"):
            ...

    Args:
        out: named in the sentence where the error names no file.
        then: what another run does, as the end of the sentence.

    Raises:
        SettingsError: in the place of the OSError.
    """
    try:
        yield
    except OSError as error:
        where, why = error.filename or out, error.strerror or error
        raise SettingsError(f"{where} cannot be written ({why}); make room, and run this again{then}") from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill. At the end it is synced to disk and renamed to `out`, in the place of what was there.

    Example:
        with new_folder(Path("releases/2026-11")) as folder:
            (folder / "genre.npz").write_bytes(head)

    When the block raises, the folder is removed, and what was there stays.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.partial-"
    for left in out.parent.glob(f"{glob.escape(prefix)}*"):  # by a job that was killed
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
    """A file to write. At the end it is synced to disk and renamed to `path`, in the place of what was there.

    Example:
        with new_file(Path("report/metrics.json")) as draft:
            draft.write_bytes(metrics)

    When the block raises, the file is removed, and what was there stays.
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        yield draft
        sync(draft)
        draft.rename(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk, so that a power cut does not lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
