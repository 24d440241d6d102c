"""The events on Kafka: JSON structs, and the msgpack features. Readers ignore unknown fields, refuse missing ones."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from models.errors import EventError, FutureEvent

MAX_ID_BYTES = 256
_SURELY_FITS = MAX_ID_BYTES // 4  # characters
Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES, description="opaque, 1 to 256 bytes of UTF-8")]
Time = Annotated[int, Meta(ge=0, le=253_402_300_799_999, description="milliseconds since 1970, UTC")]
EARLIEST_MS = 946_684_800_000  # the year 2000
SourceTime = Annotated[
    int,
    Meta(
        le=253_402_300_799_999,
        description="milliseconds since 1970, UTC; not before the year 2000",
        extra_json_schema={"minimum": EARLIEST_MS},  # checked by the structs, which say what was probably meant
    ),
]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53)]
LONGEST_LISTEN_MS = 86_400_000
ListenMilliseconds = Annotated[
    int, Meta(ge=0, le=LONGEST_LISTEN_MS, description="milliseconds, at most a day: more is of another unit")
]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Status = Literal["tagged", "abstained", "failed", "corrected"]
Kind = Literal["play", "skip", "like", "unlike", "dislike", "undislike", "playlist_add", "remove", "exclude"]


def _check_ids(**ids: str) -> None:
    for name, value in ids.items():
        if (size := len(value.encode())) > MAX_ID_BYTES:
            raise ValueError(f"{name} has {size} bytes of UTF-8, and an id may have {MAX_ID_BYTES}")


def _check_time(name: str, time: int) -> None:
    if time < EARLIEST_MS:
        raise ValueError(f"{name} is {time}, which is before the year 2000 and looks like seconds: give milliseconds")


class TrackUploaded(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A track was uploaded: fetch it, hear it, answer."""

    event_id: Id
    track_id: Id
    uri: Annotated[str, Meta(min_length=1, max_length=8192)]
    uploaded_at: SourceTime
    title: Annotated[str, Meta(max_length=4096)] | None = None
    artist_id: Id | None = None
    duration_ms: Milliseconds | None = None

    def __post_init__(self) -> None:
        _check_ids(event_id=self.event_id, track_id=self.track_id, artist_id=self.artist_id or "")
        _check_time("uploaded_at", self.uploaded_at)


class Listen(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A person listened, liked, skipped ...; played_ms and duration_ms are required for play and skip.

    remove takes back the listen of the same track and `at`. exclude takes back every listen of the track up to `at`.
    excluded: the platform knows that this listen must not shape the person's taste (a private session, a shared
    speaker, a bot): it is never stored and never trained on.
    """

    event_id: Id
    user_id: Id
    track_id: Id
    kind: Kind
    at: SourceTime
    played_ms: ListenMilliseconds | None = None
    duration_ms: ListenMilliseconds | None = None
    excluded: bool = False

    def __post_init__(self) -> None:
        if max(len(self.event_id), len(self.user_id), len(self.track_id)) > _SURELY_FITS:
            _check_ids(event_id=self.event_id, user_id=self.user_id, track_id=self.track_id)
        _check_time("at", self.at)
        if self.kind in ("play", "skip") and (self.played_ms is None or self.duration_ms is None):
            raise ValueError(f"a {self.kind} needs played_ms and duration_ms")


class TrackTagged(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to an upload, exactly what Redis holds after the write.

    event_time and event_id are those of the upload; of two uploads of one time, that of the greater event_id stands. An
    answer of an earlier version of tastewave has an empty event_id. genre is there only when status is tagged; genres
    and tags are the top k, best first; genres_from only where the genres are kinds of music that the tags name, since
    they contradict the genre head; embedding (unit norm) only where the release has a place for the track in its taste
    space: the one that its user tower learned from listens, else the one that its audio encoder hears; content_hash (of
    the file, SHA-256) and duration_ms (as decoded) only where the track was heard, by a version that tells them; reason
    only when the upload failed. When status is corrected, genre is that of an editor who said so at corrected_at, and
    all other fields are what the release says.
    """

    track_id: Id
    release: str
    status: Status
    event_time: Time
    event_id: str
    tagged_at: Time
    genre: str | None = None
    confidence: Probability | None = None
    genres: tuple[tuple[str, float], ...] = ()
    genres_from: Literal["tags"] | None = None
    tags: tuple[tuple[str, float], ...] = ()
    embedding: tuple[float, ...] | None = None
    content_hash: str | None = None
    duration_ms: Milliseconds | None = None
    reason: str | None = None
    title: str | None = None
    artist_id: str | None = None
    corrected_at: Time | None = None

    @property
    def failed(self) -> bool:
        """Whether the upload failed, also where an editor has said since which genre the track has."""
        return self.status == "failed" or self.reason is not None


class TrackCorrected(msgspec.Struct, frozen=True, kw_only=True):
    """An editor says which genre a track has; this overrides what any release says.

    The latest `at` of a track counts; of two of one time, that of the genre whose UTF-8 is greater. by: who says so.
    """

    track_id: Id
    genre: Annotated[str, Meta(min_length=1, max_length=256)]
    by: Annotated[str, Meta(min_length=1, max_length=256)]
    at: SourceTime

    def __post_init__(self) -> None:
        _check_ids(track_id=self.track_id)
        _check_time("at", self.at)


class UserEmbedded(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A user's place in taste space, exactly what Redis holds after the write."""

    user_id: Id
    release: str
    embedding: tuple[float, ...]
    source: Literal["history", "global"]
    listens: int
    event_time: Time
    revision: int
    refreshed_at: Time


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """A user or a track was forgotten.

    Listens of that user up to forgotten_at count nowhere and never again. No answer to an upload of that track up to
    then is kept.
    """

    kind: Literal["user", "track"]
    id: Id
    forgotten_at: SourceTime

    def __post_init__(self) -> None:
        _check_ids(id=self.id)
        _check_time("forgotten_at", self.forgotten_at)


class WindowFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """One 30-s window: float16 little-endian vectors of one musicnn model.

    patches: how many patches the vectors are means of; 0 in features that an earlier version of tastewave published.
    """

    start_ms: int
    max_pool: bytes
    taggram_mean: bytes
    taggram_spread: bytes
    patches: int = 0


class TrackFeatures(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Value of the features topic (msgpack): a new release answers the upload from it, without its audio.

    networks: for each musicnn model (msd, mtt) that heard the track, 12 hex digits of the SHA-256 of its file.
    windows: for each of them, its windows in time order.
    vectors: for each audio encoder that heard the track (models.release.Release.encoder_hashes), its vector of each
        window, float32 little-endian.
    event_time, event_id, title, artist_id: of the upload that was heard. Features that an earlier version of tastewave
        published have none of these, nor vectors.
    duration_ms: length of the track as decoded; None of an earlier version.
    """

    track_id: Id
    front_end: str
    content_hash: str
    networks: dict[str, str]
    windows: dict[str, tuple[WindowFeatures, ...]]
    vectors: dict[str, tuple[bytes, ...]] = {}
    event_time: Time | None = None
    event_id: str | None = None
    title: str | None = None
    artist_id: str | None = None
    duration_ms: int | None = None


JSON_EVENTS: dict[str, type[msgspec.Struct]] = {
    "tracks.uploaded": TrackUploaded,
    "listens": Listen,
    "tracks.tagged": TrackTagged,
    "tracks.corrected": TrackCorrected,
    "users.embedded": UserEmbedded,
    "forgotten": Forgotten,
}
E_ = TypeVar("E_", bound=msgspec.Struct)
_decoders = {kind: msgspec.json.Decoder(kind) for kind in JSON_EVENTS.values()}
_encoder = msgspec.json.Encoder()


def decode_event(value: bytes | None, kind: type[E_]) -> E_:
    """The event in a Kafka value.

        listen = decode_event(record.value, Listen)
        listen.user_id, listen.kind  # "u1", "like"

    Args:
        value: of the record.
        kind: the struct of the topic, one of JSON_EVENTS.

    Raises:
        EventError: the bytes are no such event; the message says what is wrong and where.
    """
    if not value:
        raise EventError(f"a {kind.__name__} event needs a JSON value, got an empty one; publish the event again")
    try:
        return _decoders[kind].decode(value)  # type: ignore[return-value]
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EventError(f"not a {kind.__name__} event: {error}; see its schema in deploy/schemas") from error


def refuse_future(name: str, time_ms: int, *, now_ms: int, tolerance_ms: int) -> None:
    """Raise FutureEvent where a time of an event is too far ahead of a clock.

    Args:
        name: of the time.
        time_ms: of the event.
        now_ms: by the clock.
        tolerance_ms: how far ahead it may be.
    """
    if (ahead_ms := time_ms - now_ms) > tolerance_ms:
        raise FutureEvent(
            f"{name} is {ahead_ms / 1000:.0f} s ahead of this clock, at most {tolerance_ms / 1000:.0f} s is taken; "
            "check the producer's clock and unit (milliseconds)"
        )


def encode_event(event: msgspec.Struct) -> bytes:
    """JSON bytes of an event; fields at their defaults are left out.

        event = Listen(event_id="e1", user_id="u1", track_id="t1", kind="like", at=1767222000000)
        producer.send(LISTENS, key=event.user_id.encode(), value=encode_event(event))

    Args:
        event: one of the structs in JSON_EVENTS.
    """
    return _encoder.encode(event)
