"""Files and folders that appear whole or not at all, and that one run at a time writes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from models.errors import SettingsError

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system or kernel says that cannot exchange two names: NFS, for example."""


def check_replaceable(folder: Path, marker: str) -> None:
    """Check that a job may replace a folder: it is missing, empty, or holds the file that marks it as the job's own.

    What a killed run had moved aside is put back first.

    Example:
        check_replaceable(Path("releases/2026-11"), "manifest.json")

    Raises:
        SettingsError: it holds something else, or is a file.
    """
    out = folder.resolve()
    if _drafts(out):
        with _alone(_lock_beside(out), out):
            _tidy(out)
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
def locked(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing, and keep other runs out of it while files in it are written.

    Example:
        with locked(Path("report")), new_file(Path("report/metrics.json")) as draft:
            draft.write_bytes(metrics)

    Raises:
        SettingsError: another run is writing to it.
        OSError: it cannot be made or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / ".lock", folder):
        yield


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill. At the end it is synced to disk and takes the place of `out` in one step.

    Example:
        with new_folder(Path("releases/2026-11")) as folder:
            (folder / "genre.npz").write_bytes(head)

    When the block raises, the folder is removed, and what was there stays. So does it when the process is killed,
    at whatever moment. A file system that cannot exchange two folders in one step needs two: a run that is killed
    between them leaves the old folder aside, and the next run puts it back.

    Raises:
        SettingsError: another run is writing `out`.
    """
    out = out.resolve()
    with _draft(out) as scratch:
        folder = scratch / "new"
        folder.mkdir()
        yield folder
        for path in (*folder.rglob("*"), folder):
            sync(path)
        if out.exists():
            _replace(out, folder)
        else:
            folder.rename(out)
        sync(out.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write. At the end it is synced to disk and renamed to `path`, in the place of what was there.

    Example:
        with new_file(Path("report/metrics.json")) as draft:
            draft.write_bytes(metrics)

    When the block raises, the file is removed, and what was there stays.

    Raises:
        SettingsError: another run is writing `path`.
    """
    with _draft(path) as scratch:
        draft = scratch / path.name
        yield draft
        sync(draft)
        draft.rename(path)
        sync(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write what msgspec can encode as JSON that people can read."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk, so that a power cut does not lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A folder beside `path`, for what is to take its place; no other run writes `path` meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(_lock_beside(path), path):
        _tidy(path)
        scratch = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=f"-{os.getpid()}", dir=path.parent))
        try:
            yield scratch
        finally:
            _discard(scratch, path)


def _prefix(path: Path) -> str:
    return f".{path.name}.partial-"


def _drafts(path: Path) -> list[Path]:
    """Of this run or of others, the drafts that are to take the place of `path`."""
    return [*path.parent.glob(f"{glob.escape(_prefix(path))}*")]


def _tidy(path: Path) -> None:
    """Remove the drafts that killed runs left. To be called under the lock: then no other run has one."""
    for left in _drafts(path):
        _discard(left, path)


def _discard(scratch: Path, path: Path) -> None:
    """Remove a draft, and put back first what it holds of `path`, where that is missing."""
    old = scratch / "old"
    if old.exists() and not path.exists():
        old.rename(path)
        sync(path.parent)
    shutil.rmtree(scratch, ignore_errors=True)  # what does not go now goes before the next draft


def _replace(out: Path, folder: Path) -> None:
    """Put a folder in the place of another, which comes to lie in the draft."""
    try:
        _exchange(folder, out)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        out.rename(folder.with_name("old"))
        folder.rename(out)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names in one step (renameat2, Linux)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, "this C library has no renameat2") from None
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one), None, str(other))


def _lock_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _alone(lock: Path, target: Path) -> Iterator[None]:
    """Hold the lock of what one run at a time may write. The kernel frees it when the process ends, however it ends."""
    descriptor = _acquire(lock)
    if descriptor is None:
        raise SettingsError(f"another run is writing {target}; wait for its end, or name another place")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path) -> int | None:
    """The descriptor of the lock's file, which holds the lock; None where another process does."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass  # the run before has removed the file since it was opened here
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
