"""How the hash of a track or a user in Redis becomes JSON, msgpack or float32 of the HTTP API.

Nothing is decoded that only has to be passed on: the lists of a track are JSON in Redis and in the answer.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from hashlib import blake2b
from typing import Any

import msgspec
from litestar.datastructures.headers import Accept

from models.events import TrackTagged, UserEmbedded
from stream.reader.reader import Fields
from stream.serve.problems import BadRequest, NoEmbedding, NotAcceptable


class User(UserEmbedded, frozen=True, omit_defaults=True, kw_only=True):
    """A user's place in taste space, as on tastewave.users.embedded; without embedding where `fields` leaves it out."""

    embedding: tuple[float, ...] | None = None  # type: ignore[assignment] - it has to be there on Kafka alone


Kind = type[TrackTagged] | type[User]


class Format(Enum):
    """What an answer is written in, by its media type."""

    JSON = "application/json"
    MSGPACK = "application/msgpack"
    FLOATS = "application/octet-stream"


_TYPES = [one.value for one in Format]


def format_of(headers: Iterable[tuple[bytes, bytes]]) -> Format:
    """The format that a request accepts. Raises NotAcceptable."""
    for name, value in headers:
        if name == b"accept":
            return _accepted(value)
    return Format.JSON


@functools.lru_cache(maxsize=256)
def _accepted(accept: bytes) -> Format:
    if accept == b"*/*":
        return Format.JSON
    best = Accept(accept.decode("latin-1")).best_match(_TYPES)
    if best is None:
        raise NotAcceptable(f"accept one of {', '.join(_TYPES)}")
    return Format(best)


_Reading = Mapping[bytes, tuple[str, Callable[[bytes], Any]]]
"""The fields of a hash: what each is called in an answer, and how it is read."""


def _floats(embedding: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(embedding) // 4}f", embedding)


def _same(embedding: bytes) -> bytes:
    return embedding


_ranked: Callable[[bytes], Any] = msgspec.json.Decoder(list[tuple[str, float]]).decode


def _reading(kind: Kind, format_: Format) -> _Reading:
    packed = format_ is Format.MSGPACK
    by_type: dict[Any, Callable[[bytes], Any]] = {
        "embedding": _same if packed else _floats,
        "genres": _ranked if packed else msgspec.Raw,
        "tags": _ranked if packed else msgspec.Raw,
        "confidence": float,
        **dict.fromkeys(("event_time", "tagged_at", "listens", "revision", "refreshed_at"), int),
    }
    names = [name for name in kind.__struct_fields__ if name not in ("track_id", "user_id", "release")]
    return {name.encode(): (name, by_type.get(name, bytes.decode)) for name in names}


_READINGS: dict[tuple[Kind, Format], _Reading] = {
    (kind, one): _reading(kind, one) for kind in (TrackTagged, User) for one in (Format.JSON, Format.MSGPACK)
}
_OPTIONAL: dict[Kind, set[str]] = {
    kind: {
        field.name for field in msgspec.structs.fields(kind) if not field.required
    }
    for kind in (TrackTagged, User)
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def _reading_of(kind: Kind, format_: Format, fields: str | None) -> _Reading:
    whole = _READINGS[kind, format_]
    if fields is None:
        return whole
    wanted = {name.strip() for name in fields.split(",") if name.strip()}
    if unknown := wanted - set(kind.__struct_fields__):
        raise BadRequest(
            f"there is no field {min(unknown)[:100]!r}; fields may name {', '.join(sorted(_OPTIONAL[kind]))}, "
            "and what else an answer has is always there"
        )
    left_out = _OPTIONAL[kind] - wanted
    return {key: reading for key, reading in whole.items() if reading[0] not in left_out}


class Answers:
    """Writes tracks, or users.

    Args:
        kind: TrackTagged or User.
        id_name: what an id is called in an answer.
        plural: what many are called.
    """

    def __init__(self, kind: Kind, *, id_name: str, plural: str) -> None:
        self._kind = kind
        self._id_name = id_name
        self._plural = plural
        self._always = {"event_id": ""} if kind is TrackTagged else {}  # an answer of an earlier version has none

    def one(self, id_: str, fields: Fields, *, release: str, format_: Format, only: str | None) -> bytes:
        """The body that tells one. Raises BadRequest where `only` names no field, NoEmbedding where there is none."""
        if format_ is Format.FLOATS:
            _reading_of(self._kind, Format.MSGPACK, only)
            if (embedding := fields.get(b"embedding")) is None:
                raise NoEmbedding(f"{id_!r} has no place in the taste space of release {release}")
            return embedding
        return _written(self._told(id_, fields, release, _reading_of(self._kind, format_, only)), format_)

    def many(
        self, ids: Sequence[str], found: Sequence[Fields | None], *, release: str, format_: Format, only: str | None
    ) -> bytes:
        """The body that tells many: those that are known, and the ids of the others.

        As floats: a row for each id, in their order; of NaN where it is unknown or has no embedding.
        """
        if format_ is Format.FLOATS:
            _reading_of(self._kind, Format.MSGPACK, only)
            return _rows(found)
        reading = _reading_of(self._kind, format_, only)
        told = [
            self._told(id_, fields, release, reading)
            for id_, fields in zip(ids, found, strict=True)
            if fields is not None
        ]
        unknown = [id_ for id_, fields in zip(ids, found, strict=True) if fields is None]
        return _written({"release": release, self._plural: told, "unknown": unknown}, format_)

    def _told(self, id_: str, fields: Fields, release: str, reading: _Reading) -> dict[str, Any]:
        told: dict[str, Any] = {self._id_name: id_, "release": release, **self._always}
        for name, value in fields.items():
            if known := reading.get(name):
                told[known[0]] = known[1](value)
        return told


def _rows(found: Collection[Fields | None]) -> bytes:
    embeddings = [fields.get(b"embedding", b"") if fields else b"" for fields in found]
    size = max(map(len, embeddings), default=0)
    missing = struct.pack("<f", float("nan")) * (size // 4)
    return b"".join([embedding or missing for embedding in embeddings])


_json, _msgpack = msgspec.json.Encoder().encode, msgspec.msgpack.Encoder().encode


def _written(document: dict[str, Any], format_: Format) -> bytes:
    return _json(document) if format_ is Format.JSON else _msgpack(document)


def etag_of(body: bytes) -> str:
    """The entity tag of a body."""
    return f'"{blake2b(body, digest_size=9).hexdigest()}"'
