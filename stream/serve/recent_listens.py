"""GET /v1/users/{id}/listens: what a user listened to of late."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from litestar import get

from models.events import Kind
from models.history import KINDS, Histories, Signal
from stream.reader.reader import AnswerReader
from stream.serve.ids import PathId, decoded
from stream.serve.lookups import Guard, documents, live, unknown
from stream.serve.nearest import Limit
from stream.serve.own_release import OwnRelease, ReleaseFacts
from stream.serve.problems import UnknownUser, documented

CountsAs = Literal["play", "partial", "brief", "skip", "like", "dislike", "playlist_add"]
_COUNTS_AS: dict[int, CountsAs] = {
    Signal.PLAY: "play", Signal.PARTIAL: "partial", Signal.BRIEF: "brief", Signal.SKIP: "skip", Signal.LIKE: "like",
    Signal.DISLIKE: "dislike", Signal.PLAYLIST_ADD: "playlist_add",
}  # fmt: skip


class RecentListen(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A listen that stands: nothing has taken it back.

    Attributes:
        track_id: of the track.
        kind: play, skip, like, dislike or playlist_add.
        at: when, ms.
        played_ms, duration_ms: of a play or a skip.
        counts_as: what the release takes it for: a play counts as play (heard at least half), partial or brief (turned
            away from); not there where this process cannot read the release (TASTEWAVE_RELEASE).
        title, artist_id, genre: of the track, where the live release knows it.
    """

    track_id: str
    kind: Kind
    at: int
    played_ms: int = 0
    duration_ms: int = 0
    counts_as: CountsAs | None = None
    title: str | None = None
    artist_id: str | None = None
    genre: str | None = None


class RecentListens(msgspec.Struct, frozen=True, kw_only=True):
    """The newest listens of a user that stand, newest first; as many as there are, up to the limit."""

    release: str
    user_id: str
    listens: list[RecentListen]


def recent_listens_route(reader: AnswerReader, own_release: OwnRelease, *, guard: Guard) -> Any:
    """The route, behind the guard."""

    @get(
        "/v1/users/{user_id:str}/listens",
        responses=documents(RecentListens, "The listens.") | documented(400, 401, 404, 503),
        guards=[guard],
        tags=["users"],
    )
    async def listens(user_id: PathId, limit: Limit = 20) -> RecentListens:
        """What a user listened to of late, and what it counts as."""
        id_, release = decoded(user_id), await live(reader)
        (user,) = await reader.users([id_], ("source",), release=release)
        if user is None:
            raise unknown(UnknownUser, id_, release)
        told = _newest(await reader.listens(id_), limit, await own_release.facts(release))
        of_tracks = await _tracks(reader, {one.track_id for one in told}, release=release)
        return RecentListens(
            release=release,
            user_id=id_,
            listens=[msgspec.structs.replace(one, **of_tracks.get(one.track_id, {})) for one in told],
        )

    return listens


def _newest(histories: Histories, limit: int, facts: ReleaseFacts | None) -> list[RecentListen]:
    kind, played_ms, duration_ms = (
        column[::-1][:limit] for column in (histories.kind, histories.played_ms, histories.duration_ms)
    )
    rule = facts.counting if facts else None
    signals = rule.signals(kind, played_ms, duration_ms) if rule else np.zeros(len(kind), np.uint8)
    columns = (kind, histories.at[::-1][:limit], played_ms, duration_ms, signals)
    return [
        RecentListen(
            track_id=track_id.decode(),
            kind=KINDS[code],
            at=at,
            played_ms=played,
            duration_ms=duration,
            counts_as=_COUNTS_AS.get(signal),
        )
        for track_id, code, at, played, duration, signal in zip(
            histories.track_ids[::-1][:limit], *(column.tolist() for column in columns), strict=True
        )
    ]


async def _tracks(reader: AnswerReader, track_ids: set[str], *, release: str) -> dict[str, dict[str, str]]:
    """What the live release holds of tracks, by their ids."""
    names = ("title", "artist_id", "genre", "status")
    ids = sorted(track_ids)
    found = await reader.tracks(ids, names, release=release)
    return {
        id_: {name: value.decode() for name, value in zip(names[:-1], values, strict=False) if value is not None}
        for id_, values in zip(ids, found, strict=True)
        if values
    }
