"""Answers to uploads in Redis: every write is one single-slot script that is idempotent and refuses to go back.

Each script touches one key (two where taggrams are kept). While a slot of a Cluster moves, Redis answers TRYAGAIN to a
script of several keys until the slot has moved, and scripts of one key go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from models.contract import taggram_key, track_answer, track_fields, track_key
from models.events import TrackTagged
from stream.store.away import named
from stream.store.scripts import rehearsal, script


class PublishedFeatures(NamedTuple):
    """What the features of a track on their topic were computed from.

    Attributes:
        event_time: of the upload that was heard, ms.
        content: version of the front end, and hash of the audio file.
    """

    event_time: int
    content: str


class TrackStore:
    """Reads and writes the tracks of one release.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id under which the answers are kept.
        keep_taggrams: whether taggrams are kept beside the answers.
    """

    def __init__(self, client: Any, release: str, *, keep_taggrams: bool = False) -> None:
        self._client = client
        self._release = release
        self._keep_taggrams = keep_taggrams
        self._put = script(client, "put_track")
        self._mark_features = script(client, "mark_features")
        self._put_rehearsal = rehearsal(client, "put_track")
        self._mark_rehearsal = rehearsal(client, "mark_features")
        self._nobody = f"rehearsal-{uuid4().hex}"

    async def rehearse(self) -> None:
        """Write what an answer writes, under an id of its own, and delete it at once.

        Raises:
            What stream.store.away.is_redis_away knows, where Redis would refuse an answer.
        """
        first = TrackTagged(
            track_id=self._nobody, release=self._release, status="tagged", event_time=0, tagged_at=0, genre="any"
        )
        later = msgspec.structs.replace(first, event_time=1, genre=None, title="any")  # which takes the genre away
        arguments = [*_arguments(first, b"taggram"), *_arguments(later, b"")]
        await self._put_rehearsal(keys=self._keys(self._nobody), args=arguments)
        await self._mark_rehearsal(keys=[_features_key(self._nobody)], args=[0, "0 content", 1, "1 content"])

    async def get(self, track_id: str) -> TrackTagged | None:
        """The answer that is held for a track, or None."""
        key = track_key(self._release, track_id)
        with named(key):
            fields = await self._client.hgetall(key)
            return track_answer(track_id, self._release, fields) if fields else None

    async def put(self, answer: TrackTagged, *, taggram: bytes = b"") -> TrackTagged:
        """Write an answer unless a better or later one is held; returns what Redis holds afterwards."""
        keys = self._keys(answer.track_id)
        with named(" or ".join(keys)):
            held = await self._put(keys=keys, args=_arguments(answer, taggram))
            return track_answer(answer.track_id, self._release, _pairs(held))

    def _keys(self, track_id: str) -> list[str]:
        """The keys of put_track.lua."""
        keys = [track_key(self._release, track_id)]
        # An id that begins with "}" empties the hash tag, and a Cluster then puts the two keys into two slots.
        if self._keep_taggrams and not track_id.startswith("}"):
            keys.append(taggram_key(self._release, track_id))
        return keys

    async def published_features(self, track_id: str) -> PublishedFeatures | None:
        """What the features of a track were published from, by the workers of any release; None where nobody did."""
        with named(_features_key(track_id)):
            mark: bytes | None = await self._client.get(_features_key(track_id))
        event_time, _, content = (mark or b"").decode().partition(" ")
        return PublishedFeatures(int(event_time), content) if content and event_time.isdecimal() else None

    async def mark_features(self, track_id: str, published: PublishedFeatures) -> None:
        """Remember what features were published from, unless those of a later upload were published since."""
        mark = f"{published.event_time} {published.content}"
        with named(_features_key(track_id)):
            await self._mark_features(keys=[_features_key(track_id)], args=[published.event_time, mark])


def _arguments(answer: TrackTagged, taggram: bytes) -> list[Any]:
    """The arguments of put_track.lua."""
    fields = [part for field in track_fields(answer).items() for part in field]
    return [int(answer.status != "failed"), answer.event_time, taggram, *fields]


def _features_key(track_id: str) -> str:
    return f"tw:features:{{{track_id}}}"


def _pairs(flat: list[bytes]) -> Mapping[bytes, bytes]:
    """The fields of a hash, from the list of names and values that a script returns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
