"""Embeddings of tracks that the user tower does not know: those that the audio encoder gave them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import KEY_PREFIX, track_key
from stream.store.away import named

_REMEMBERED = 50_000  # of 40 dimensions, about 20 MiB
_REMEMBERED_S = 60.0  # a track that is uploaded anew gets another embedding, and a forgotten one loses it
_KEYS_AT_ONCE = 1000


class ColdTracks:
    """Reads the embeddings of tracks in a release's answers, and remembers them for a minute.

    A track that has no answer yet is looked up again each time: it counts from a user's next refresh after it was
    tagged.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id of the answers.
        dim: of taste space.
        key_prefix: of all keys.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        client: Any,
        release: str,
        *,
        dim: int,
        key_prefix: str = KEY_PREFIX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._release = release
        self._bytes = 4 * dim
        self._prefix = key_prefix
        self._monotonic = monotonic
        self._remembered = dict[bytes, NDArray[np.float32]]()
        self._since = monotonic()

    async def embeddings(self, track_ids: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """(dim,) of unit norm, of those tracks that have one.

        Raises:
            What stream.store.away.is_redis_away knows.
        """
        now = self._monotonic()
        if now - self._since > _REMEMBERED_S or len(self._remembered) > _REMEMBERED:
            self._remembered, self._since = {}, now
        remembered = self._remembered
        asked = [track_id for track_id in track_ids if track_id not in remembered]
        for first in range(0, len(asked), _KEYS_AT_ONCE):
            part = asked[first : first + _KEYS_AT_ONCE]
            for track_id, embedding in zip(part, await self._read(part), strict=True):
                if embedding is not None:
                    remembered[track_id] = embedding
        return {track_id: remembered[track_id] for track_id in track_ids if track_id in remembered}

    async def _read(self, track_ids: Sequence[bytes]) -> list[NDArray[np.float32] | None]:
        keys = [track_key(self._release, track_id.decode(), prefix=self._prefix) for track_id in track_ids]
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, "embedding")
        found: list[bytes | Exception | None] = await pipeline.execute(raise_on_error=False)
        return [self._decode(key, one) for key, one in zip(keys, found, strict=True)]

    def _decode(self, key: str, found: bytes | Exception | None) -> NDArray[np.float32] | None:
        with named(key):
            if isinstance(found, Exception):
                raise found
            if found is not None and len(found) != self._bytes:
                raise ValueError(f"an embedding of {len(found)} bytes, not {self._bytes}")
        return None if found is None else np.frombuffer(found, "<f4")
