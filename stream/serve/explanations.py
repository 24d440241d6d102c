"""Why a track got its answer: its taggram, and what the release wanted to be sure of."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import Request, Response, get

from models.contract import TAGGRAM_HEADER_BYTES, decode_taggram
from stream.reader.reader import AnswerReader, Values
from stream.serve.answers import Format, format_of
from stream.serve.audio import may_be_served
from stream.serve.ids import PathId, decoded
from stream.serve.lookups import documents, live, unknown
from stream.serve.own_release import OwnRelease, ReleaseFacts
from stream.serve.problems import NoTaggram, UnknownTrack, documented
from stream.serve.uploaded_audio import UploadedAudio
from stream.store.away import named

Because = Literal["tags", "confidence", "training_tracks"]
_TOLD = ("status", "event_id", "genres", "genres_from")
_ranked = msgspec.json.Decoder(list[tuple[str, float]]).decode


class Taggram(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The tags of a track over time.

    Attributes:
        release: that heard it.
        track_id: of the track.
        tags: names of the columns; not there where this process cannot read the release (TASTEWAVE_RELEASE).
        starts_ms: where each patch of about 3 s starts in the track; not there where that is not known.
        values: a row for each patch, in the order of time, with a number from 0 to 255 for each tag.
    """

    release: str
    track_id: str
    tags: tuple[str, ...] | None = None
    starts_ms: list[int] | None = None
    values: list[list[int]]


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an answer does not tell of itself.

    Attributes:
        release: that gave the answer.
        track_id: of the track.
        thresholds: the probability from which on the release answers each genre; not there where this process cannot
            read the release (TASTEWAVE_RELEASE).
        abstained_because: of an abstained answer, where it is known: its strongest tag names another kind of music
            (tags), its best genre is too unlikely (confidence), or it is far from the tracks that the release learned
            from, or near to those of another genre (training_tracks).
        has_taggram: whether /taggram has one.
        has_audio: whether /audio looks for a file.
    """

    release: str
    track_id: str
    thresholds: dict[str, float] | None = None
    abstained_because: Because | None = None
    has_taggram: bool
    has_audio: bool


def explanation_routes(reader: AnswerReader, own_release: OwnRelease, uploads: UploadedAudio | None) -> list[Any]:
    """The routes."""

    @get(
        "/v1/tracks/{track_id:str}/taggram",
        responses=documents(Taggram, "The taggram.") | documented(400, 404, 406, 503),
        tags=["tracks"],
    )
    async def taggram(request: Request[Any, Any, Any], track_id: PathId) -> Response[bytes]:
        """What was heard in a track from moment to moment."""
        id_, format_, release = decoded(track_id), format_of(request.scope["headers"]), await live(reader)
        (values,) = await reader.tracks([id_], ("status", "duration_ms"), release=release)
        if values is None:
            raise unknown(UnknownTrack, id_, release)
        stored = await reader.taggram(id_, release=release)
        if stored is None:
            raise NoTaggram(
                f"release {release} holds no taggram of {id_!r}; workers keep those of tracks that they hear where "
                "TASTEWAVE_STORE_TAGGRAM is true"
            )
        if format_ is Format.FLOATS:
            body = stored
        else:
            told = _taggram(id_, stored, values[1], release=release, facts=await own_release.facts(release))
            body = (msgspec.json if format_ is Format.JSON else msgspec.msgpack).encode(told)
        return Response(body, media_type=format_.value, headers={"Tastewave-Release": release, "Vary": "Accept"})

    @get(
        "/v1/tracks/{track_id:str}/explanation",
        responses=documents(Explanation, "The explanation.") | documented(400, 404, 503),
        tags=["tracks"],
    )
    async def explanation(track_id: PathId) -> Explanation:
        """Why a track is tagged or abstained, and what else there is to see and to hear of it."""
        id_, release = decoded(track_id), await live(reader)
        (values,) = await reader.tracks([id_], _TOLD, release=release)
        if values is None:
            raise unknown(UnknownTrack, id_, release)
        thresholds = facts.thresholds if (facts := await own_release.facts(release)) else None
        return Explanation(
            release=release,
            track_id=id_,
            thresholds=thresholds,
            abstained_because=_because(values, thresholds),
            has_taggram=await reader.has_taggram(id_, release=release),
            has_audio=may_be_served(uploads, id_, (values[1] or b"").decode()),
        )

    return [taggram, explanation]


def _taggram(
    track_id: str, stored: bytes, duration_ms: bytes | None, *, release: str, facts: ReleaseFacts | None
) -> Taggram:
    with named(f"the taggram of {track_id}"):
        patches, tags = decode_taggram(stored).shape
    numbers = list(stored[TAGGRAM_HEADER_BYTES:])
    return Taggram(
        release=release,
        track_id=track_id,
        tags=facts.tags if facts and len(facts.tags) == tags else None,
        starts_ms=facts.starts_ms(patches=patches, duration_ms=int(duration_ms)) if facts and duration_ms else None,
        values=[numbers[tags * patch : tags * (patch + 1)] for patch in range(patches)],
    )


def _because(values: Values, thresholds: dict[str, float] | None) -> Because | None:
    """Why an answer abstained; it says so itself only where the tags were the reason."""
    status, _, genres, genres_from = values
    if status != b"abstained":
        return None
    if genres_from == b"tags":
        return "tags"
    if thresholds is None or not genres:
        return None
    enough = any(probability >= thresholds.get(genre, 2.0) for genre, probability in _ranked(genres))
    return "training_tracks" if enough else "confidence"
