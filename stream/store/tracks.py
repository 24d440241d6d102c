"""Answers to uploads in Redis: every write is one single-slot script that is idempotent and refuses to go back."""

from __future__ import annotations

from typing import Any, NamedTuple

from models.contract import taggram_key, track_answer, track_fields, track_key
from models.events import TrackTagged
from stream.store.scripts import pairs, script


class PublishedFeatures(NamedTuple):
    """What the features of a track on their topic were computed from: the upload's time, and front end and content."""

    event_time: int
    content: str


class HeldTrack(NamedTuple):
    """What Redis holds of a track. Either part may be missing."""

    answer: TrackTagged | None
    features: PublishedFeatures | None


class StoredTrack(NamedTuple):
    """What Redis holds of a track after an answer was put."""

    answer: TrackTagged
    features: PublishedFeatures | None


class TrackStore:
    """Reads and writes the tracks of one release.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id under which the answers are kept.
        keep_taggrams: whether taggrams are kept beside the answers.
    """

    def __init__(self, client: Any, release: str, *, keep_taggrams: bool = False) -> None:
        self._release = release
        self._keep_taggrams = keep_taggrams
        self._get = script(client, "get_track")
        self._put = script(client, "put_track")
        self._mark_features = script(client, "mark_features")

    async def get(self, track_id: str) -> HeldTrack:
        """What is held of a track."""
        fields, mark = await self._get(keys=self._keys(track_id), args=[])
        return HeldTrack(self._answer(track_id, fields) if fields else None, _features(mark))

    async def put(self, answer: TrackTagged, *, taggram: bytes = b"") -> StoredTrack:
        """Write an answer unless a better or later one is held; returns what Redis holds afterwards."""
        keys = self._keys(answer.track_id)
        shares_slot = len(keys) > 1
        if self._keep_taggrams and shares_slot:
            keys.append(taggram_key(self._release, answer.track_id))
        fields = track_fields(answer)
        heard = int(answer.status != "failed")
        arguments = [heard, answer.event_time, int(shares_slot), taggram]
        arguments += [part for field in fields.items() for part in field]
        held, mark = await self._put(keys=keys, args=arguments)
        return StoredTrack(self._answer(answer.track_id, held), _features(mark))

    async def mark_features(self, track_id: str, published: PublishedFeatures) -> TrackTagged | None:
        """Remember what features were published from; returns the answer that is held now."""
        mark = f"{published.event_time} {published.content}"
        fields = await self._mark_features(keys=self._keys(track_id), args=[published.event_time, mark])
        return self._answer(track_id, fields) if fields else None

    def _answer(self, track_id: str, fields: list[bytes]) -> TrackTagged:
        return track_answer(track_id, self._release, pairs(fields))

    def _keys(self, track_id: str) -> list[str]:
        """The keys of a track in one slot.

        An id that begins with "}" empties the hash tag, and a Cluster then puts each key in a slot of its own. Of such
        a track the answer alone is kept: its features are published each time that it is heard, and it is heard
        again each time that its event is delivered again.
        """
        key = track_key(self._release, track_id)
        return [key] if track_id.startswith("}") else [key, f"tw:features:{{{track_id}}}"]


def _features(mark: bytes) -> PublishedFeatures | None:
    event_time, _, content = mark.decode().partition(" ")
    return PublishedFeatures(int(event_time), content) if content and event_time.isdecimal() else None
