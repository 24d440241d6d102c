"""Content codings of HTTP (Content-Encoding): those that change nothing, and those that are undone here."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from models.errors import FetchFailed
from stream.audio.intake import Fetched, Intake, TransientError

GZIP_START = b"\x1f\x8b"

_CHANGE_NOTHING = frozenset({"", "identity", "aws-chunked", "utf-8", "binary"})
_GZIP = frozenset({"gzip", "x-gzip"})
_PIECE_BYTES = 1 << 14  # zlib copies the rest of a piece at each end of a gzip member: many members cost little
_MOST_OUT_BYTES = 1 << 20
_MEMBER_BYTES = 1 << 10  # as which a member counts at least: it takes time to begin one, and it may hold nothing


def coding(headers: Iterable[str]) -> str | None:
    """The coding that changes the bytes, by the values of all Content-Encoding headers; None where none does."""
    names = [name.strip().lower() for header in headers for name in header.split(",")]
    return ", ".join(name for name in names if name not in _CHANGE_NOTHING) or None


class Unpacked:
    """Takes the blocks of a file in gzip or deflate, and hands what is in them to an Intake, with the same methods.

    Its memory is bounded whatever the blocks expand to. What went in counts against the Intake's limit too, since a
    stream may go on for ever without giving a byte.

    Args:
        intake: keeps what comes out.
        place: the URI as errors may show it.
        coding: gzip, x-gzip or deflate.

    Raises:
        FetchFailed: another coding.
    """

    def __init__(self, intake: Intake, place: str, coding: str) -> None:
        if coding not in _GZIP and coding != "deflate":
            raise FetchFailed(
                f"{place} came with Content-Encoding {coding[:40]!r}; serve the file as it is, or in gzip"
            )
        self._intake = intake
        self._place = place
        self._coding = coding
        self._received = 0
        self._stream: zlib._Decompress | None = None

    def add(self, block: bytes | bytearray) -> None:
        """Take the next block. Raises TooLarge, or FetchFailed where it is not in this coding."""
        self._count(len(block))
        for start in range(0, len(block), _PIECE_BYTES):
            try:
                self._unpack(bytes(block[start : start + _PIECE_BYTES]))
            except zlib.error:
                raise FetchFailed(
                    f"{self._place} is not in {self._coding}, as it was said to be; store the file as it is"
                ) from None

    def finish(self) -> Fetched:
        """The file with all that came out. Raises TransientError where the end is missing."""
        if self._stream and not self._stream.eof:
            raise TransientError(f"broke off in the middle of its {self._coding}")
        return self._intake.finish()

    def _count(self, received_bytes: int) -> None:
        self._received += received_bytes
        self._intake.expect(self._received)

    def _unpack(self, piece: bytes) -> None:
        while piece:
            if self._stream is None or self._stream.eof:  # gzip may have several members, and zeros behind the last
                piece = piece.lstrip(b"\0") if self._stream else piece
                if not piece:
                    return
                self._count(_MEMBER_BYTES)
                self._stream = zlib.decompressobj(self._window_bits(piece[0]))
            self._intake.add(self._stream.decompress(piece, _MOST_OUT_BYTES))
            piece = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail

    def _window_bits(self, first_byte: int) -> int:
        """How zlib is told the format. Some servers send deflate without the header that the standard asks for."""
        if self._coding in _GZIP:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first_byte & 0x0F == 8 else -zlib.MAX_WBITS
