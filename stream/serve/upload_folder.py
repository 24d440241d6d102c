"""The folder of uploaded files: each is there whole or not at all, and the oldest go where there are too many."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import IO, Self

from models.errors import SettingsError, TastewaveError

MOST_FILES, MOST_BYTES = 500, 5_000_000_000
"""Uploads that are kept. Older ones go when a new one comes, but none that is younger than LEAST_AGE_S."""
LEAST_AGE_S = 600.0
SPARE_BYTES = 500_000_000
"""Free space of the disk that uploads leave."""
_NAME, _PART = "upload-", ".part"


class NoRoom(TastewaveError):
    """The folder takes no file now."""


class UploadFolder:
    """Takes files.

        with folder.begin(".wav", size_bytes=1_000_000) as coming:
            for block in blocks:
                coming.write(block)
            path = coming.finish()

    All of it blocks.

    Args:
        path: the folder.

    Raises:
        SettingsError: nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        if not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
            raise SettingsError(f"TASTEWAVE_SERVE_UPLOADS: {path} is no folder that can be written to; make it")

    def begin(self, suffix: str, *, size_bytes: int) -> Coming:
        """A file that is about to come.

        Args:
            suffix: with which its name ends, such as .wav.
            size_bytes: the most that comes.

        Raises:
            NoRoom: there is no space, or no old upload that could go.
        """
        try:
            self._make_room(size_bytes)
            return Coming(self._path / f"{_NAME}{secrets.token_hex(16)}{suffix}")
        except OSError as error:
            raise _full(error) from error

    def _make_room(self, size_bytes: int) -> None:
        now = time.time()
        kept = sorted(
            (stat.st_mtime, stat.st_size, path) for path in self._path.glob(f"{_NAME}*") if (stat := _stat(path))
        )
        count, size = len(kept) + 1, sum(bytes_ for _, bytes_, _ in kept) + size_bytes
        for modified_at, bytes_, path in kept:
            is_left_over = path.suffix == _PART  # of a process that was killed
            if count <= MOST_FILES and size <= MOST_BYTES and not is_left_over:
                continue
            if now - modified_at < LEAST_AGE_S:
                if is_left_over:
                    continue
                raise NoRoom(f"{len(kept)} files came in the last minutes; try again later")
            path.unlink(missing_ok=True)
            count, size = count - 1, size - bytes_
        if shutil.disk_usage(self._path).free - size_bytes < SPARE_BYTES:
            raise NoRoom("the disk is almost full; free space on it")


class Coming:
    """A file that is being written, under another name until it is whole. Leaving its block before removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + _PART)
        self._file: IO[bytes] = self._part.open("xb")
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, block: bytes) -> None:
        """Write a block. Raises NoRoom where the disk takes no more."""
        self._hash.update(block)
        self.size_bytes += len(block)
        try:
            self._file.write(block)
        except OSError as error:
            raise _full(error) from error

    @property
    def content_hash(self) -> str:
        """SHA-256 of what was written, hexadecimal."""
        return self._hash.hexdigest()

    def finish(self) -> Path:
        """Give the file its name, once the disk has all of it. Raises NoRoom."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._part.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _full(error) from error
        return self._path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which what is left cannot be written to
            self._file.close()
        self._part.unlink(missing_ok=True)


def _stat(path: Path) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):  # another upload has removed it
        return path.stat()
    return None


def _full(error: OSError) -> NoRoom:
    return NoRoom(f"the file cannot be stored ({error.strerror}); look after the folder of uploads and its disk")
