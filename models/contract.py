"""Names and layouts that other services rely on: Kafka topics, Redis keys, the fields of a track (contract 1)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from models.events import TrackTagged, UserEmbedded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONTRACT = 1

TRACKS_UPLOADED = "tastewave.tracks.uploaded"
LISTENS = "tastewave.listens"
TRACKS_TAGGED = "tastewave.tracks.tagged"
TRACKS_CORRECTED = "tastewave.tracks.corrected"
USERS_EMBEDDED = "tastewave.users.embedded"
TRACKS_FEATURES = "tastewave.tracks.features"
FORGOTTEN = "tastewave.forgotten"
DEAD_LETTER = "tastewave.dead-letter"

KEY_PREFIX = "tw"
"""Of all Redis keys, unless a platform sets another one."""


def live_key(*, prefix: str = KEY_PREFIX) -> str:
    """Redis key of the pointer to the live release."""
    return f"{prefix}:live"


LIVE_KEY = live_key()


def track_key(release: str, track_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of a track's answer."""
    return f"{prefix}:{release}:track:{{{track_id}}}"


def taggram_key(release: str, track_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of a track's taggram."""
    return f"{prefix}:{release}:taggram:{{{track_id}}}"


def user_key(release: str, user_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of a user's embedding."""
    return f"{prefix}:{release}:user:{{{user_id}}}"


def history_key(user_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of a user's listening history. It is tastewave's own."""
    return f"{prefix}:history:{{{user_id}}}"


def feedback_key(user_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of what a user likes, dislikes and has excluded. It is tastewave's own."""
    return f"{prefix}:feedback:{{{user_id}}}"


def forgotten_user_key(user_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of the time up to which a user was forgotten. It is tastewave's own."""
    return f"{prefix}:forgotten:{{{user_id}}}"


def forgotten_track_key(track_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of the time up to which a track was forgotten. It is tastewave's own."""
    return f"{prefix}:forgotten-track:{{{track_id}}}"


def corrected_key(track_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of the genre that an editor gave a track. It is tastewave's own."""
    return f"{prefix}:corrected:{{{track_id}}}"


def releases_key(*, prefix: str = KEY_PREFIX) -> str:
    """Redis key of the set of releases whose workers have written. It is tastewave's own."""
    return f"{prefix}:releases"


def features_key(track_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of what a track's features were published from. It is tastewave's own."""
    return f"{prefix}:features:{{{track_id}}}"


def features_lock_key(track_id: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of the lock on publishing a track's features. It is tastewave's own."""
    return f"{prefix}:features:{{{track_id}}}:lock"


def health_key(worker: str, *, prefix: str = KEY_PREFIX) -> str:
    """Redis key of a worker's heartbeat. It is tastewave's own."""
    return f"{prefix}:health:{worker}"


def workers_key(*, prefix: str = KEY_PREFIX) -> str:
    """Redis key of what workers say of themselves. It is tastewave's own."""
    return f"{prefix}:workers"


_TEXT = ("status", "event_id", "genre", "genres_from", "content_hash", "reason", "title", "artist_id")
_NUMBERS = ("event_time", "tagged_at", "duration_ms")
_REQUIRED_NUMBERS = ("event_time", "tagged_at")
_RANKED = ("genres", "tags")


def track_fields(answer: TrackTagged) -> dict[str, bytes]:
    """The fields of the Redis hash for an answer; absent values have no field.

        redis.hset(track_key(answer.release, answer.track_id), mapping=track_fields(answer))

    Returns:
        Field to bytes: texts in UTF-8, numbers as decimal text, ranked lists as JSON, the embedding as float32.
    """
    fields: dict[str, bytes] = {}
    for name in _TEXT:
        if (text := getattr(answer, name)) is not None:
            fields[name] = text.encode()
    for name in _NUMBERS:
        if (number := getattr(answer, name)) is not None:
            fields[name] = str(number).encode()
    if answer.corrected_at is not None:
        fields["corrected_at"] = str(answer.corrected_at).encode()
    for name in _RANKED:
        fields[name] = msgspec.json.encode(getattr(answer, name))
    if answer.confidence is not None:
        fields["confidence"] = repr(answer.confidence).encode()
    if answer.embedding is not None:
        fields["embedding"] = struct.pack(f"<{len(answer.embedding)}f", *answer.embedding)
    return fields


def track_answer(track_id: str, release: str, fields: Mapping[bytes, bytes]) -> TrackTagged:
    """The answer in a Redis hash: the inverse of track_fields.

        fields = redis.hgetall(track_key(release, "t1"))
        if fields:
            answer = track_answer("t1", release, fields)
            answer.genre, answer.confidence  # "jazz", 0.83; None and 0.41 where the release abstained

    Args:
        track_id: of the track.
        release: release_id that the answer is from.
        fields: of the hash, as redis-py gives them without decode_responses. Fields that are not known are ignored.

    Raises:
        KeyError: a field that every answer has is missing, as in the empty hash of a track without an answer.
    """
    values: dict[str, object] = {"event_id": ""}  # for an answer of an earlier version, which has none
    for name in _TEXT:
        if (text := fields.get(name.encode())) is not None:
            values[name] = text.decode()
    for name in _NUMBERS:
        if name in _REQUIRED_NUMBERS or name.encode() in fields:
            values[name] = int(fields[name.encode()])
    for name in _RANKED:
        values[name] = msgspec.json.decode(fields[name.encode()], type=tuple[tuple[str, float], ...])
    if (corrected_at := fields.get(b"corrected_at")) is not None:
        values["corrected_at"] = int(corrected_at)
    if (confidence := fields.get(b"confidence")) is not None:
        values["confidence"] = float(confidence)
    if (embedding := fields.get(b"embedding")) is not None:
        values["embedding"] = struct.unpack(f"<{len(embedding) // 4}f", embedding)
    return TrackTagged(track_id=track_id, release=release, **values)  # type: ignore[arg-type]


_USER_NUMBERS = ("listens", "event_time", "revision", "refreshed_at")


def user_fields(answer: UserEmbedded) -> dict[str, bytes]:
    """The fields of the Redis hash for a user.

        redis.hset(user_key(answer.release, answer.user_id), mapping=user_fields(answer))

    Returns:
        Field to bytes: source as text, numbers as decimal text, the embedding as float32.
    """
    return {
        "listens": b"%d" % answer.listens,
        "event_time": b"%d" % answer.event_time,
        "revision": b"%d" % answer.revision,
        "refreshed_at": b"%d" % answer.refreshed_at,
        "source": answer.source.encode(),
        "embedding": struct.pack(f"<{len(answer.embedding)}f", *answer.embedding),
    }


def user_answer(user_id: str, release: str, fields: Mapping[bytes, bytes]) -> UserEmbedded:
    """The user in a Redis hash: the inverse of user_fields.

        fields = redis.hgetall(user_key(release, "u1"))
        if fields:
            user = user_answer("u1", release, fields)
            user.source, user.listens  # "history", 64

    Args:
        user_id: of the user.
        release: release_id that the embedding is from.
        fields: of the hash, as redis-py gives them without decode_responses. Fields that are not known are ignored.

    Raises:
        KeyError: a field is missing, as in the empty hash of an unknown user.
    """
    embedding = fields[b"embedding"]
    return UserEmbedded(
        user_id=user_id,
        release=release,
        embedding=struct.unpack(f"<{len(embedding) // 4}f", embedding),
        source=fields[b"source"].decode(),  # type: ignore[arg-type]
        **{name: int(fields[name.encode()]) for name in _USER_NUMBERS},
    )


_TAGGRAM_HEADER = struct.Struct("<4sBBH")  # magic, version, tags, patches
_TAGGRAM_MAGIC = b"TWTG"
TAGGRAM_HEADER_BYTES = _TAGGRAM_HEADER.size
"""Bytes of a taggram before its values."""


def encode_taggram(taggram: NDArray[np.float32]) -> bytes:
    """A taggram as an 8-byte header and one byte per value.

    Args:
        taggram: (patches, tags) float32, 0 to 1; each value p is rounded to 255 p.
    """
    import numpy as np  # the main process of a worker starts without it

    patches, tags = taggram.shape
    values = np.rint(np.clip(taggram, 0.0, 1.0) * 255.0).astype(np.uint8)
    return _TAGGRAM_HEADER.pack(_TAGGRAM_MAGIC, 1, tags, patches) + values.tobytes()


def decode_taggram(data: bytes) -> NDArray[np.float32]:
    """The inverse of encode_taggram, within half a step of 1/255.

        taggram = decode_taggram(redis.get(taggram_key(release, "t1")))
        taggram.shape  # (30, 50): 10 patches in each of three windows, 50 tags

    Returns:
        (patches, tags) float32, 0 to 1.

    Raises:
        ValueError: the bytes are no taggram of version 1.
    """
    import numpy as np

    if len(data) < _TAGGRAM_HEADER.size:
        raise ValueError(f"a taggram has a header of {_TAGGRAM_HEADER.size} bytes, got {len(data)} bytes in all")
    magic, version, tags, patches = _TAGGRAM_HEADER.unpack_from(data)
    if magic != _TAGGRAM_MAGIC or version != 1 or len(data) != _TAGGRAM_HEADER.size + tags * patches:
        raise ValueError(f"not a version 1 taggram: magic {magic!r}, version {version}, {len(data)} bytes")
    values = np.frombuffer(data, np.uint8, offset=_TAGGRAM_HEADER.size).reshape(patches, tags)
    return values.astype(np.float32) / np.float32(255.0)
