"""The tracks of one release, many at once: each exchange with Redis carries the commands of hundreds of tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from models.contract import KEY_PREFIX, corrected_key, features_key, forgotten_track_key, track_answer, track_key
from models.events import TrackFeatures, TrackTagged
from stream.store.away import named
from stream.store.corrections import Corrections
from stream.store.forgotten import track_keys
from stream.store.pipelines import exchange, exchange_with_cluster
from stream.store.scripts import script
from stream.store.tracks import put_arguments, read_mark

_COMMANDS_AT_ONCE = 512


class ManyTracks:
    """Reads and writes the tracks of one release.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id under which the answers are kept.
        key_prefix: of all keys.
        cluster: whether the client is one of a Cluster.
        keep_taggrams: whether taggrams are kept beside the answers; an answer that is written here has none.
    """

    def __init__(
        self,
        client: Any,
        release: str,
        *,
        key_prefix: str = KEY_PREFIX,
        cluster: bool = False,
        keep_taggrams: bool = False,
    ) -> None:
        self._client = client
        self._release = release
        self._prefix = key_prefix
        self._exchange = exchange_with_cluster if cluster else exchange
        self._keep_taggrams = keep_taggrams
        self._put = script(client, "put_track")
        self._corrections = Corrections(client, key_prefix=key_prefix)

    async def put(self, answers: Sequence[TrackTagged]) -> list[TrackTagged]:
        """Write answers as TrackStore.put does; returns what Redis holds of each afterwards.

        Raises:
            What stream.store.away.is_redis_away knows. Some may have been written; writing again does no harm.
        """
        commands = list[tuple[Any, ...]]()
        for answer in answers:
            keys = track_keys(self._release, answer.track_id, key_prefix=self._prefix)
            keys = keys if self._keep_taggrams else keys[:1]
            commands.append(("EVALSHA", self._put.sha, len(keys), *keys, *put_arguments(answer)))
        held = await self._all(commands)
        written = [self._answer(one.track_id, fields) for one, fields in zip(answers, held, strict=True)]
        looks = [("EXISTS", corrected_key(one.track_id, prefix=self._prefix)) for one in answers]
        corrected = await self._all(looks)
        return [
            await self._corrections.applied(one) if is_corrected else one
            for one, is_corrected in zip(written, corrected, strict=True)
        ]

    async def get(self, track_ids: Sequence[str]) -> list[TrackTagged | None]:
        """The answers that are held, None for a track without one."""
        held = await self._all([("HGETALL", self._key(self._release, track_id)) for track_id in track_ids])
        return [self._answer(one, fields) if fields else None for one, fields in zip(track_ids, held, strict=True)]

    async def forgotten_at(self, track_ids: Sequence[str]) -> list[int]:
        """The time up to which each track was forgotten, ms; 0 for never."""
        keys = [forgotten_track_key(track_id, prefix=self._prefix) for track_id in track_ids]
        times = await self._all([("GET", key) for key in keys])
        marks = list[int]()
        for key, time in zip(keys, times, strict=True):
            with named(key):
                marks.append(int(time or 0))
        return marks

    async def with_uploads(self, tracks: Sequence[TrackFeatures], *, live: str | None) -> list[TrackFeatures]:
        """Features that do not tell whose upload they are of, with what Redis knows of it.

        The mark of the features tells the upload, where it speaks of the same audio. Title and artist are those of
        the live release's answer to it.

        Args:
            tracks: that an earlier version of tastewave published.
            live: release_id of the live release.
        """
        names = ("event_time", "event_id", "title", "artist_id")
        marks = await self._all([("GET", features_key(track.track_id, prefix=self._prefix)) for track in tracks])
        keys = [self._key(live or self._release, track.track_id) for track in tracks]
        held = await self._all([("HMGET", key, *names) for key in keys])
        found = list[TrackFeatures]()
        for track, mark, (time, event_id, title, artist_id) in zip(tracks, marks, held, strict=True):
            of = read_mark(mark)
            if of is None or of.content != f"{track.front_end}:{track.content_hash}":
                found.append(track)
                continue
            is_answer = (time, event_id) == (str(of.event_time).encode(), of.event_id.encode())
            told = {"title": title, "artist_id": artist_id} if is_answer else {}
            texts = {name: text.decode() for name, text in told.items() if text is not None}
            found.append(msgspec.structs.replace(track, event_time=of.event_time, event_id=of.event_id, **texts))
        return found

    async def _all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to commands of one key or slot each; raises the first error."""
        answers = list[Any]()
        for at in range(0, len(commands), _COMMANDS_AT_ONCE):
            part = commands[at : at + _COMMANDS_AT_ONCE]
            of_part = await self._exchange(self._client, part, script=self._put.script)
            for command, answer in zip(part, of_part, strict=True):
                if isinstance(answer, Exception):
                    with named(str(command[3] if command[0] == "EVALSHA" else command[1])):
                        raise answer
            answers += of_part
        return answers

    def _key(self, release: str, track_id: str) -> str:
        return track_key(release, track_id, prefix=self._prefix)

    def _answer(self, track_id: str, fields: Mapping[bytes, bytes] | list[bytes]) -> TrackTagged:
        """The answer in a hash, which a Cluster client gives as a dict and a single server as a list."""
        with named(self._key(self._release, track_id)):
            pairs = dict(zip(fields[::2], fields[1::2], strict=True)) if isinstance(fields, list) else fields
            return track_answer(track_id, self._release, pairs)
