"""What a pool process sends to the worker: each message is its length in 4 bytes, then one of these structs in msgpack.

The worker decodes nothing but these structs, whatever a file has made of the pool process.
"""

from __future__ import annotations

import struct

import msgspec

from models.tagging import Tagging

LENGTH = struct.Struct(">I")


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The release is loaded. For each guard of stream.audio.sandbox, whether it holds."""

    guards: dict[str, bool]


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An error: the name of its class in models.errors ("" for a bug of ours), and its message."""

    error: str
    message: str


Message = Ready | Tagging | Refused
