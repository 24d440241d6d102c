"""Answers of tastewave, read from Redis by other services in Python.

    import redis
    from stream.reader.answers import read_track

    answer = read_track(redis.Redis(), "my-track")
    if answer and answer.genre:
        print(answer.genre, answer.confidence)

The keys themselves are part of the contract (models.contract), so a service in any language can read them.
"""

from __future__ import annotations

from typing import Any

from models.contract import KEY_PREFIX, live_key, track_answer, track_key, user_answer, user_key
from models.events import TrackTagged, UserEmbedded


def live_release(client: Any, *, key_prefix: str = KEY_PREFIX) -> str | None:
    """The release whose answers readers should use now, or None where no release is live.

        release = live_release(redis.Redis())   # such as "ea2da6218123"

    Use the result for one second at most, and for all reads of one request: the live release may change at any time.

    Args:
        client: a redis.Redis or RedisCluster that returns bytes, which both do unless told otherwise.
        key_prefix: the platform's TASTEWAVE_REDIS_KEY_PREFIX.
    """
    release: bytes | None = client.hget(live_key(prefix=key_prefix), "release")
    return release.decode() if release else None


def read_track(
    client: Any, track_id: str, *, release: str | None = None, key_prefix: str = KEY_PREFIX
) -> TrackTagged | None:
    """The answer for a track in a release, or None where the track is unknown to it or no release is live.

        client = redis.Redis()
        release = live_release(client)
        answers = [read_track(client, track_id, release=release) for track_id in track_ids]

    Args:
        client: a redis.Redis or RedisCluster that returns bytes, which both do unless told otherwise.
        track_id: as it was uploaded.
        release: a release id; the live release when None, which asks Redis once more.
        key_prefix: the platform's TASTEWAVE_REDIS_KEY_PREFIX.
    """
    release = release or live_release(client, key_prefix=key_prefix)
    if release is None:
        return None
    fields: dict[bytes, bytes] = client.hgetall(track_key(release, track_id, prefix=key_prefix))
    return track_answer(track_id, release, fields) if fields else None


def read_user(
    client: Any, user_id: str, *, release: str | None = None, key_prefix: str = KEY_PREFIX
) -> UserEmbedded | None:
    """Where a user stands in a release's taste space, or None where it knows no such user or no release is live.

        user = read_user(redis.Redis(), "u1")
        user.embedding, user.source   # 40 numbers of norm 1; history or global

    Args:
        client: a redis.Redis or RedisCluster that returns bytes, which both do unless told otherwise.
        user_id: as in the listens.
        release: a release id; the live release when None, which asks Redis once more.
        key_prefix: the platform's TASTEWAVE_REDIS_KEY_PREFIX.
    """
    release = release or live_release(client, key_prefix=key_prefix)
    if release is None:
        return None
    fields: dict[bytes, bytes] = client.hgetall(user_key(release, user_id, prefix=key_prefix))
    return user_answer(user_id, release, fields) if fields else None
