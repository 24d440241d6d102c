"""Answers to uploads in Redis: every write is one single-slot script that is idempotent and refuses to go back.

Each script touches one key (two where taggrams are kept). While a slot of a Cluster moves, Redis answers TRYAGAIN to a
script of several keys until the slot has moved, and scripts of one key go on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import msgspec

from models.contract import (
    KEY_PREFIX,
    features_key,
    features_lock_key,
    forgotten_track_key,
    track_answer,
    track_fields,
    track_key,
)
from models.events import TrackTagged
from stream.store.away import named
from stream.store.corrections import Corrections
from stream.store.forgotten import drop_track, track_keys
from stream.store.scripts import rehearsal, script


class PublishedFeatures(msgspec.Struct, frozen=True, array_like=True):
    """What the features of a track on their topic were computed from.

    Attributes:
        event_time, event_id: of the upload that was heard; the time in ms.
        content: version of the front end, and hash of the audio file.
        networks: the networks that heard it, each with the hash of its file.
        encoders: the hashes of the audio encoders that heard it.
    """

    event_time: int
    event_id: str
    content: str
    networks: Mapping[str, str]
    encoders: tuple[str, ...] = ()

    @property
    def event(self) -> tuple[int, str]:
        """The place of the upload among those of its track."""
        return self.event_time, self.event_id

    def heard_by(self, networks: Mapping[str, str], encoders: Collection[str]) -> bool:
        """Whether these networks and encoders are among those that heard the track."""
        return networks.items() <= self.networks.items() and set(encoders) <= set(self.encoders)


_LOCK_S = 15.0  # as long as a request to Kafka may take
_LOCK_ASKED_EVERY_S = 0.02
_mark = msgspec.json.Decoder(PublishedFeatures)


class TrackStore:
    """Reads and writes the tracks of one release.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id under which the answers are kept.
        key_prefix: of all keys.
        keep_taggrams: whether taggrams are kept beside the answers.
    """

    def __init__(self, client: Any, release: str, *, key_prefix: str = KEY_PREFIX, keep_taggrams: bool = False) -> None:
        self._client = client
        self._release = release
        self._prefix = key_prefix
        self._keep_taggrams = keep_taggrams
        self._put = script(client, "put_track")
        self._mark_features = script(client, "mark_features")
        self._put_rehearsal = rehearsal(client, "put_track")
        self._mark_rehearsal = rehearsal(client, "mark_features")
        self._corrections = Corrections(client, key_prefix=key_prefix)
        self._nobody = f"rehearsal-{uuid4().hex}"

    async def rehearse(self) -> None:
        """Write what an answer writes, under an id of its own, and delete it at once.

        Raises:
            What stream.store.away.is_redis_away knows, where Redis would refuse an answer.
        """
        first = TrackTagged(
            track_id=self._nobody,
            release=self._release,
            status="tagged",
            event_time=0,
            event_id="any",
            tagged_at=0,
            genre="any",
        )
        later = msgspec.structs.replace(first, event_time=1, genre=None, title="any")  # which takes the genre away
        arguments = [*put_arguments(first, b"taggram"), *put_arguments(later, b"")]
        await self._put_rehearsal(keys=self._keys(self._nobody), args=arguments)
        key = features_key(self._nobody, prefix=self._prefix)
        await self._mark_rehearsal(keys=[key], args=[0, "[0,", 1, "[1,"])

    async def get(self, track_id: str) -> TrackTagged | None:
        """The answer that is held for a track, or None."""
        key = track_key(self._release, track_id, prefix=self._prefix)
        with named(key):
            fields = await self._client.hgetall(key)
            return track_answer(track_id, self._release, fields) if fields else None

    async def put(self, answer: TrackTagged, *, taggram: bytes = b"") -> TrackTagged:
        """Write an answer unless a better or later one is held; returns what Redis holds afterwards.

        Where an editor has corrected the track, that is with the editor's genre.
        """
        keys = self._keys(answer.track_id)
        with named(" or ".join(keys)):
            held = await self._put(keys=keys, args=put_arguments(answer, taggram))
            written = track_answer(answer.track_id, self._release, _pairs(held))
        return await self._corrections.applied(written)

    async def forgotten_at(self, track_id: str) -> int:
        """The time up to which a track was forgotten, ms; 0 for never."""
        key = forgotten_track_key(track_id, prefix=self._prefix)
        with named(key):
            return int(await self._client.get(key) or 0)

    async def drop(self, track_id: str, forgotten_at: int) -> None:
        """Delete the answer to an upload up to the time at which the track was forgotten.

        Answers are written without a look at that time: it has a key of its own, and writes of one key go on while a
        slot of a Cluster moves. So whoever writes an answer looks afterwards.
        """
        await drop_track(self._client, self._release, track_id, forgotten_at, key_prefix=self._prefix)

    def _keys(self, track_id: str) -> list[str]:
        """The keys of put_track.lua."""
        keys = track_keys(self._release, track_id, key_prefix=self._prefix)
        return keys if self._keep_taggrams else keys[:1]

    def features_lock(self, track_id: str) -> AbstractAsyncContextManager[Any]:
        """Inside the block, no worker of any release but this one publishes features of the track.

        Features replace each other on their topic, so that what was last found missing has to be what comes last. The
        lock of a worker that was killed ends by itself.
        """
        return self._client.lock(
            features_lock_key(track_id, prefix=self._prefix),
            timeout=_LOCK_S,
            sleep=_LOCK_ASKED_EVERY_S,
            raise_on_release_error=False,
        )

    async def published_features(self, track_id: str) -> PublishedFeatures | None:
        """What the features of a track were published from, by the workers of any release; None where nobody did."""
        key = features_key(track_id, prefix=self._prefix)
        with named(key):
            mark: bytes | None = await self._client.get(key)
        return read_mark(mark)

    async def unmark_features(self, track_id: str) -> None:
        """Forget what the features of a track were published from, since they are taken back."""
        await self._client.delete(features_key(track_id, prefix=self._prefix))

    async def mark_features(self, track_id: str, published: PublishedFeatures) -> None:
        """Remember what features were published from, unless those of a later upload were published since."""
        key = features_key(track_id, prefix=self._prefix)
        with named(key):
            await self._mark_features(keys=[key], args=[published.event_time, msgspec.json.encode(published)])


def read_mark(mark: bytes | None) -> PublishedFeatures | None:
    """What features were published from; None where nobody did, or an earlier version wrote the mark."""
    try:
        return _mark.decode(mark or b"")
    except msgspec.MsgspecError:
        return None


def put_arguments(answer: TrackTagged, taggram: bytes = b"") -> list[Any]:
    """The arguments of put_track.lua."""
    fields = [part for field in track_fields(answer).items() for part in field]
    return [int(not answer.failed), answer.event_time, answer.event_id, taggram, *fields]


def _pairs(flat: list[bytes]) -> Mapping[bytes, bytes]:
    """The fields of a hash, from the list of names and values that a script returns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
