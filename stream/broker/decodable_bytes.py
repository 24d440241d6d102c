"""Bytes that can be decoded whatever they are, for header names that are not UTF-8.

It imports no client of Kafka: workers have aiokafka, commands kafka-python, and each costs a fifth of a second at the
start.
"""

from __future__ import annotations

from typing import Any


class DecodableBytes(bytearray):
    """Of which each slice can be decoded."""

    def __getitem__(self, place: Any) -> Any:
        piece = super().__getitem__(place)
        return DecodableBytes(piece) if isinstance(place, slice) else piece

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        """The text; bytes that are none become \\xe9 and the like."""
        return super().decode(encoding, errors)
