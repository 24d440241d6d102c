"""Answers in Redis: every write is one single-slot script that is idempotent and refuses to go back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import redis.exceptions

from models.contract import CONTRACT, LIVE_KEY, taggram_key, track_answer, track_fields, track_key
from models.events import TrackTagged

# An answer that heard the audio (tagged, abstained) stands above a failure; among equals the later event
# stands, and of one event the first answer. The order in which answers arrive does not matter. HSET is the
# first write, since Redis refuses a script for want of memory only before it has written.
_PUT_TRACK = """
local held = redis.call('HMGET', KEYS[1], 'status', 'event_time')
local good, event_time, taggram = ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3]
local keep = false
if held[1] then
  local held_good = held[1] ~= 'failed'
  if held_good ~= good then keep = held_good else keep = tonumber(held[2]) >= event_time end
end
if not keep then
  local stale = {}
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do stale[field] = true end
  redis.call('HSET', KEYS[1], unpack(ARGV, 4))
  for at = 4, #ARGV, 2 do stale[ARGV[at]] = nil end
  for field in pairs(stale) do redis.call('HDEL', KEYS[1], field) end
  if KEYS[2] then
    if taggram == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], taggram) end
  end
end
return redis.call('HGETALL', KEYS[1])
"""

SET_LIVE = """
local held = redis.call('HGET', KEYS[1], 'release')
if held and (ARGV[4] == '1' or held == ARGV[2]) then return held end
redis.call('HSET', KEYS[1], 'contract', ARGV[1], 'release', ARGV[2], 'previous', held or '', 'since', ARGV[3])
return ARGV[2]
"""

_HEARTBEAT_TTL_S = 86_400

_AWAY_PREFIXES = (
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "LOADING",
    "BUSY",
)


def is_redis_away(error: BaseException) -> bool:
    """Whether the error says that Redis cannot be written now, and may be later."""
    if isinstance(
        error,
        redis.exceptions.ConnectionError
        | redis.exceptions.TimeoutError
        | redis.exceptions.ReadOnlyError
        | redis.exceptions.OutOfMemoryError
        | redis.exceptions.RedisClusterException
        | redis.exceptions.ClusterError  # also: redirected too often, since a slot is moving
        | redis.exceptions.TryAgainError,
    ):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and str(error).startswith(_AWAY_PREFIXES)


class TrackStore:
    """Reads and writes the tracks of one release.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        release: release_id under which answers live.
        keep_taggrams: whether taggrams are kept beside the answers.
    """

    def __init__(self, client: Any, release: str, *, keep_taggrams: bool = False) -> None:
        self._client = client
        self._release = release
        self._keep_taggrams = keep_taggrams
        self._put = client.register_script(_PUT_TRACK)
        self._set_live = client.register_script(SET_LIVE)
        self._live = release
        self._heartbeat = f"tw:health:{uuid4().hex}"
        self._beats_ms: tuple[int, int] | None = None  # the first and the last that Redis acknowledged

    async def check(self) -> int | None:
        """Write a heartbeat, and put the pointer to the live release back where it is gone.

        Returns:
            Where Redis has lost writes that it had acknowledged: since when (ms, UTC), or earlier where it lost
            this worker's heartbeats altogether, whose first it then is. Else None.

        Raises:
            What is_redis_away knows: Redis does not answer, or takes no writes.
        """
        live = await self._client.hget(LIVE_KEY, "release")
        if live:
            self._live = live.decode()
        else:
            await self.go_live(only_if_none=True)
        now_ms = time.time_ns() // 1_000_000
        held = await self._client.set(self._heartbeat, now_ms, ex=_HEARTBEAT_TTL_S, get=True)
        if self._beats_ms is None:
            self._beats_ms = now_ms, now_ms
            return None
        first_ms, last_ms = self._beats_ms
        self._beats_ms = first_ms, now_ms
        since_ms = int(held) if held and live else first_ms
        return since_ms if since_ms < last_ms or not live else None

    async def get(self, track_id: str) -> TrackTagged | None:
        """The answer held for a track, or None."""
        fields = await self._client.hgetall(track_key(self._release, track_id))
        return track_answer(track_id, self._release, fields) if fields else None

    async def put(self, answer: TrackTagged, *, taggram: bytes = b"") -> TrackTagged:
        """Write an answer unless a better or later one is held; returns what Redis holds afterwards."""
        keys = [track_key(self._release, answer.track_id)]
        # An id that opens with "}" empties the hash tag, and a cluster puts the two keys in two slots.
        if self._keep_taggrams and not answer.track_id.startswith("}"):
            keys.append(taggram_key(self._release, answer.track_id))
        fields = track_fields(answer)
        good = b"0" if answer.status == "failed" else b"1"
        arguments = [good, fields["event_time"], taggram, *(part for item in fields.items() for part in item)]
        held = await self._put(keys=keys, args=arguments)
        return track_answer(answer.track_id, self._release, _pairs(held))

    async def features_published(self, track_id: str) -> bytes | None:
        """Which content and front end the features topic holds for a track, as `mark_features_published` left it."""
        return await self._client.get(_features_key(track_id))

    async def mark_features_published(self, track_id: str, content: bytes) -> None:
        """Remember that the features of this content are on their topic."""
        await self._client.set(_features_key(track_id), content)

    async def go_live(self, *, only_if_none: bool = False) -> str:
        """Point readers at this release. Returns the live release.

        With only_if_none, only where no release is live, and then at the one that was live when this worker last
        looked, if any.
        """
        release = self._live if only_if_none else self._release
        live: bytes = await self._set_live(keys=[LIVE_KEY], args=live_arguments(release, only_if_none=only_if_none))
        self._live = live.decode()
        return self._live


def live_arguments(release: str, *, only_if_none: bool = False) -> list[str | int]:
    """Arguments of SET_LIVE."""
    return [CONTRACT, release, time.time_ns() // 1_000_000, int(only_if_none)]


def _features_key(track_id: str) -> str:
    return f"tw:features:{{{track_id}}}"


def _pairs(flat: list[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
