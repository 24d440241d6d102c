"""Corrections: the genre that an editor gives a track overrides what any release says.

Answers keep the correction in their own key, so that each write touches one key, and one of another slot's key never
waits. A correction is kept in a key of its own first, and then written into the answers that there are. Whoever writes
an answer looks at that key afterwards. So an answer that comes at the same time is corrected there or here, and the
order in which answers and corrections arrive does not matter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from models.contract import KEY_PREFIX, corrected_key, forgotten_track_key, track_answer, track_key
from models.events import TrackCorrected, TrackTagged
from stream.store.away import named
from stream.store.scripts import script
from stream.store.users import known_releases

Publish = Callable[[str, str, TrackTagged | None], Awaitable[None]]
"""Publishes what a release (the first) holds of a track (the second)."""


class Corrections:
    """Writes corrections, and answers as they leave them.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        key_prefix: of all keys.
    """

    def __init__(self, client: Any, *, key_prefix: str = KEY_PREFIX) -> None:
        self._client = client
        self._prefix = key_prefix
        self._put = script(client, "put_correction")
        self._drop = script(client, "drop_correction")
        self._correct = script(client, "correct_track")

    async def correct(self, correction: TrackCorrected, *, publish: Publish) -> None:
        """Keep a correction, write it into the answers of all releases, and publish what Redis holds of each.

        A correction up to the time at which the track was forgotten, or before one that is held, changes nothing. Doing
        it again does no harm.

        Raises:
            What stream.store.away.is_redis_away knows, and what publish raises.
        """
        track_id, key = correction.track_id, corrected_key(correction.track_id, prefix=self._prefix)
        with named(key):
            await self._put(keys=[key], args=[correction.at, correction.genre, correction.by])
        # Whoever forgets a track marks it first and then deletes. So what was written is deleted there, or here.
        mark = forgotten_track_key(track_id, prefix=self._prefix)
        with named(mark):
            await self.drop(track_id, int(await self._client.get(mark) or 0))
        for release in await known_releases(self._client, key_prefix=self._prefix):
            held = await self._get(release, track_id)
            if held is None:
                continue
            held = await self.applied(held)
            while True:  # until what was published is what Redis holds: a worker may have written in between
                await publish(release, track_id, held)
                before, held = held, await self._get(release, track_id)
                if held == before:
                    break

    async def applied(self, answer: TrackTagged) -> TrackTagged:
        """Write the correction of a track, where there is one, into an answer that Redis holds; what it then holds."""
        key = corrected_key(answer.track_id, prefix=self._prefix)
        with named(key):
            at, genre = await self._client.hmget(key, ["at", "genre"])
        if at is None or (answer.corrected_at, answer.genre) == (int(at), genre.decode()):
            return answer
        key = track_key(answer.release, answer.track_id, prefix=self._prefix)
        with named(key):
            held = await self._correct(keys=[key], args=[at, genre])
            return track_answer(answer.track_id, answer.release, _pairs(held)) if held else answer

    async def drop(self, track_id: str, forgotten_at: int) -> None:
        """Delete the correction of a track up to the time at which the track was forgotten (ms)."""
        key = corrected_key(track_id, prefix=self._prefix)
        with named(key):
            await self._drop(keys=[key], args=[forgotten_at])

    async def _get(self, release: str, track_id: str) -> TrackTagged | None:
        key = track_key(release, track_id, prefix=self._prefix)
        with named(key):
            fields = await self._client.hgetall(key)
            return track_answer(track_id, release, fields) if fields else None


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
