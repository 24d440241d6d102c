"""What the worker and a pool process send each other: a message is its length in 4 bytes, then a struct in msgpack.

The worker sends Request, and decodes nothing but the other structs, whatever a file has made of the pool process.
"""

from __future__ import annotations

import struct

import msgspec

from models.tagging import Tagging

LENGTH = struct.Struct(">I")


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """Comes with the descriptor of a file: what else is known of its track.

    Attributes:
        track_id: of the track; None for a file that is none of a platform's.
        artist_id: of its artist; None where the upload names none.
    """

    track_id: str | None = None
    artist_id: str | None = None


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The release is loaded.

    Attributes:
        guards: for each guard of stream.audio.sandbox, whether it holds.
        dim: of taste space; None where the release has none.
        genre_shares: of each genre among the tracks that the genre head was trained on (GenreHead.shares).
    """

    guards: dict[str, bool]
    dim: int | None = None
    genre_shares: dict[str, float] = {}


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An error: the name of its class in models.errors ("" for a bug of ours), and its message."""

    error: str
    message: str


Message = Ready | Tagging | Refused
