"""How the hash of a track or a user in Redis becomes JSON, msgpack or float32 of the HTTP API.

Nothing is decoded that only has to be passed on: the lists of a track are JSON in Redis and in the answer.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from hashlib import blake2b
from itertools import compress, repeat
from typing import Any, NamedTuple

import msgspec
import msgspec.inspect
from litestar.datastructures.headers import Accept

from models.events import TrackTagged, UserEmbedded
from stream.reader.reader import Values
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


_ALWAYS = {"event_id"}  # an answer of an earlier version has none
_MOST_READINGS = 256
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


class Reading(NamedTuple):
    """Which fields of a hash are read, and how each becomes part of an answer."""

    names: tuple[str, ...]
    parts: tuple[tuple[str, Callable[[bytes], Any]], ...]


def _floats(embedding: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(embedding) // 4}f", embedding)


def _same(embedding: bytes) -> bytes:
    return embedding


_ranked: Callable[[bytes], Any] = msgspec.json.Decoder(list[tuple[str, float]]).decode


def _reading(kind: Kind, format_: Format) -> Reading:
    packed = format_ is not Format.JSON
    lists: dict[str, Callable[[bytes], Any]] = {
        "embedding": _same if packed else _floats,
        "genres": _ranked if packed else msgspec.Raw,
        "tags": _ranked if packed else msgspec.Raw,
    }
    parts = tuple(
        (field.name, lists.get(field.name) or _plain(field.type))
        for field in _fields_of(kind)
        if field.name not in ("track_id", "user_id", "release")
    )
    return Reading(tuple(name for name, _ in parts), parts)


def _fields_of(kind: Kind) -> tuple[msgspec.inspect.Field, ...]:
    """The fields of a struct, with their types."""
    told = msgspec.inspect.type_info(kind)
    return told.fields if isinstance(told, msgspec.inspect.StructType) else ()


def _plain(type_: msgspec.inspect.Type) -> Callable[[bytes], Any]:
    """How a number or a text is read."""
    if isinstance(type_, msgspec.inspect.Metadata):
        return _plain(type_.type)
    if isinstance(type_, msgspec.inspect.UnionType):
        return next((read for one in type_.types if (read := _plain(one)) is not bytes.decode), bytes.decode)
    if isinstance(type_, msgspec.inspect.IntType):
        return int
    return float if isinstance(type_, msgspec.inspect.FloatType) else bytes.decode


_OPTIONAL: dict[Kind, set[str]] = {
    kind: {field.name for field in _fields_of(kind) if not field.required} for kind in (TrackTagged, User)
}


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
        self._names = [name for name, _ in _reading(kind, Format.JSON).parts]
        fields = [id_name, "release", *((name, Any, None) for name in self._names)]
        self._told: Any = msgspec.defstruct(kind.__name__, fields, omit_defaults=True)
        self._readings: dict[tuple[Format, str | None], Reading] = {
            (format_, None): _reading(kind, format_) for format_ in Format
        }

    def reading(self, format_: Format, only: str | None) -> Reading:
        """What has to be read for an answer.

        Args:
            format_: of the answer.
            only: comma-separated names of the optional fields that are wanted; all where it is None.

        Raises:
            BadRequest: there is no field of such a name.
        """
        if (known := self._readings.get((format_, only))) is not None:
            return known
        wanted = {name.strip() for name in (only or "").split(",") if name.strip()}
        if unknown := wanted - set(self._kind.__struct_fields__):
            raise BadRequest(
                f"there is no field {min(unknown)[:100]!r}; fields may name "
                f"{', '.join(sorted(_OPTIONAL[self._kind]))}, and what else an answer has is always there"
            )
        if format_ is Format.FLOATS:
            return self._readings[format_, None]
        parts = self._readings[format_, None].parts
        kept = tuple(part for part in parts if part[0] not in _OPTIONAL[self._kind] - wanted)
        reading = Reading(tuple(name for name, _ in kept), kept)
        if len(self._readings) < _MOST_READINGS:
            self._readings[format_, only] = reading
        return reading

    def one(self, id_: str, values: Values, reading: Reading, *, release: str, format_: Format) -> bytes:
        """The body that tells one. Raises NoEmbedding where that is what was asked for, and there is none."""
        if format_ is Format.FLOATS:
            if (embedding := values[reading.names.index("embedding")]) is None:
                raise NoEmbedding(f"{id_!r} has no place in the taste space of release {release}")
            return embedding
        told: dict[str, Any] = {self._id_name: id_, "release": release}
        for (name, read), value in zip(reading.parts, values, strict=True):
            if value is not None:
                told[name] = read(value)
            elif name in _ALWAYS:
                told[name] = ""
        return _written(told, format_)

    def many(
        self, ids: Sequence[str], found: Sequence[Values | None], reading: Reading, *, release: str, format_: Format
    ) -> bytes:
        """The body that tells many: those that are known, and the ids of the others.

        As floats: a row for each id, in their order; of NaN where it is unknown or has no embedding.
        """
        if format_ is Format.FLOATS:
            place = reading.names.index("embedding")
            return _rows([values[place] or b"" if values else b"" for values in found])
        known = [values is not None for values in found]
        told = self._all_told(compress(ids, known), list(compress(found, known)), release, reading)  # type: ignore[arg-type]
        unknown = [id_ for id_, is_known in zip(ids, known, strict=True) if not is_known]
        return _written({"release": release, self._plural: told, "unknown": unknown}, format_)

    def _all_told(self, ids: Iterable[str], rows: Sequence[Values], release: str, reading: Reading) -> list[Any]:
        """What is told of each row: field by field, which is faster than row by row."""
        told: dict[str, Iterable[Any]] = {
            name: _column(name, read, values)
            for (name, read), values in zip(reading.parts, zip(*rows, strict=True), strict=bool(rows))
        }
        columns = [told.get(name) or repeat(None) for name in self._names]
        return list(map(self._told, ids, repeat(release), *columns))


def _column(name: str, read: Callable[[bytes], Any], values: Sequence[bytes | None]) -> list[Any]:
    if None not in values:
        return list(map(read, values))  # type: ignore[arg-type]
    missing = "" if name in _ALWAYS else None
    return [missing if value is None else read(value) for value in values]


def _rows(embeddings: Sequence[bytes]) -> bytes:
    size = max(map(len, embeddings), default=0)
    missing = struct.pack("<f", float("nan")) * (size // 4)
    return b"".join([embedding or missing for embedding in embeddings])


_json, _msgpack = msgspec.json.Encoder().encode, msgspec.msgpack.Encoder().encode


def _written(document: Any, format_: Format) -> bytes:
    return _json(document) if format_ is Format.JSON else _msgpack(document)


def etag_of(body: bytes) -> bytes:
    """The entity tag of a body."""
    return b'"%s"' % blake2b(body, digest_size=9).hexdigest().encode()
