"""What a pool process sends to the worker: each message is its length in 4 bytes, then one of these structs in msgpack.

The worker decodes nothing but these structs, whatever a file has made of the pool process.
"""

from __future__ import annotations

import struct

import msgspec

from models.events import MAX_ID_BYTES
from models.tagging import Tagging

LENGTH = struct.Struct(">I")
MAX_REQUEST_BYTES = 1 + MAX_ID_BYTES
"""A request is one byte and the track's id, where it has one: an empty message would bring no descriptor."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The release is loaded.

    Attributes:
        guards: for each guard of stream.audio.sandbox, whether it holds.
        dim: of taste space; None where the release has none.
    """

    guards: dict[str, bool]
    dim: int | None = None


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An error: the name of its class in models.errors ("" for a bug of ours), and its message."""

    error: str
    message: str


Message = Ready | Tagging | Refused
