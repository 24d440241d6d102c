"""Answers to uploads in Redis: every write is one single-slot script that is idempotent and refuses to go back.

Each script touches one key (two where taggrams are kept). While a slot of a Cluster moves, Redis answers TRYAGAIN to a
script of several keys until the slot has moved, and scripts of one key go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from models.contract import taggram_key, track_answer, track_fields, track_key
from models.events import TrackTagged
from stream.store.scripts import script


class PublishedFeatures(NamedTuple):
    """What the features of a track on their topic were computed from.

    Attributes:
        event_time: of the upload that was heard, ms; None where an earlier version of tastewave noted no time.
        content: version of the front end, and hash of the audio file.
    """

    event_time: int | None
    content: str

    def covers(self, event_time: int) -> bool:
        """Whether the features of an upload of that time, whose answer is held, were published.

        A mark without a time says so for every answer: earlier versions published features before the answer.
        """
        return self.event_time is None or self.event_time >= event_time


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

    async def get(self, track_id: str) -> TrackTagged | None:
        """The answer that is held for a track, or None."""
        fields = await self._client.hgetall(track_key(self._release, track_id))
        return track_answer(track_id, self._release, fields) if fields else None

    async def put(self, answer: TrackTagged, *, taggram: bytes = b"") -> TrackTagged:
        """Write an answer unless a better or later one is held; returns what Redis holds afterwards."""
        keys = [track_key(self._release, answer.track_id)]
        # An id that begins with "}" empties the hash tag, and a Cluster then puts the two keys into two slots.
        if self._keep_taggrams and not answer.track_id.startswith("}"):
            keys.append(taggram_key(self._release, answer.track_id))
        arguments = [int(answer.status != "failed"), answer.event_time, taggram]
        arguments += [part for field in track_fields(answer).items() for part in field]
        return track_answer(answer.track_id, self._release, _pairs(await self._put(keys=keys, args=arguments)))

    async def published_features(self, track_id: str) -> PublishedFeatures | None:
        """What the features of a track were published from, by the workers of any release; None where nobody did."""
        mark: bytes | None = await self._client.get(_features_key(track_id))
        if mark is None:
            return None
        event_time, _, content = mark.decode().rpartition(" ")
        return PublishedFeatures(int(event_time) if event_time else None, content)

    async def mark_features(self, track_id: str, published: PublishedFeatures) -> None:
        """Remember what features were published from, unless those of a later upload were published since."""
        await self._mark_features(keys=[_features_key(track_id)], args=[published.event_time, published.content])


def _features_key(track_id: str) -> str:
    return f"tw:features:{{{track_id}}}"


def _pairs(flat: list[bytes]) -> Mapping[bytes, bytes]:
    """The fields of a hash, from the list of names and values that a script returns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
