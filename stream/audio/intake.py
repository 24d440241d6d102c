"""Audio on its way in: counted, hashed, and kept in a file that no crash can leave behind."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from dataclasses import dataclass
from typing import IO, Self

from models.errors import TooLarge
from stream.audio.machine import own_disk


class TransientError(Exception):
    """Something failed that may work when the fetch is tried again. The message completes "<uri> ... in each try"."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Audio in an open file. Close it when done; a temporary file is then gone, since it has no name.

    Attributes:
        file: readable, at its start: an unlinked temporary file, or the original of a file:// URI.
        size_bytes: bytes in it.
        content_hash: SHA-256 of these bytes, hexadecimal.
    """

    file: IO[bytes]
    size_bytes: int
    content_hash: str

    def close(self) -> None:
        """Close the file; may be called again."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Intake:
    """Counts and hashes the blocks of one file, writes them to an unlinked temporary file, and refuses too many bytes.

        with Intake("https://host/a.mp3", max_bytes=200_000_000) as intake:
            intake.expect(content_length)
            for block in blocks:
                intake.add(block)
            fetched = intake.finish()

    Leaving the `with` block by an exception closes the file. Its methods block. Where the disk takes no more,
    MachineUnusable is raised.

    Args:
        place: the URI as errors may show it.
        max_bytes: the most that the file may have.
        original: an open file that holds the blocks already. Nothing is written then, and Fetched gets this file.
    """

    def __init__(self, place: str, *, max_bytes: int, original: IO[bytes] | None = None) -> None:
        self._place = place
        self._max_bytes = max_bytes
        self._copies = original is None
        with own_disk():
            self._file = original or tempfile.TemporaryFile()  # noqa: SIM115 - Fetched closes it
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # of a full disk, which closing cannot write what is left to
                self._file.close()  # waits for a block that a thread is writing

    def expect(self, size_bytes: int | None) -> None:
        """Raise TooLarge when the announced size (None where there is none) is over max_bytes."""
        if size_bytes is not None and size_bytes > self._max_bytes:
            raise TooLarge(
                f"{self._place} has {size_bytes} bytes or more, and {self._max_bytes} are allowed; "
                "upload a smaller file, or raise TASTEWAVE_FETCH_MAX_BYTES"
            )

    def add(self, block: bytes | bytearray) -> None:
        """Take the next block. Raises TooLarge when there are more than max_bytes now."""
        self._size_bytes += len(block)
        self.expect(self._size_bytes)
        self._hash.update(block)
        if self._copies:
            with own_disk():
                self._file.write(block)

    def finish(self) -> Fetched:
        """The file with all blocks, at its start; the caller closes it."""
        with own_disk():
            self._file.seek(0)
        return Fetched(self._file, self._size_bytes, self._hash.hexdigest())
