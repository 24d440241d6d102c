"""Forgetting users and tracks: what was told up to a time goes, and a mark keeps it from coming back.

Marks have no end: a redelivery, a rewind or a rebuild may come at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from models.contract import (
    KEY_PREFIX,
    features_key,
    feedback_key,
    forgotten_track_key,
    forgotten_user_key,
    history_key,
    taggram_key,
    track_key,
    user_key,
)
from stream.store.away import named
from stream.store.corrections import Corrections
from stream.store.scripts import script


class ForgottenUser(NamedTuple):
    """What was removed of a user.

    Attributes:
        forgotten_at: the time up to which the user is forgotten, ms; later than asked where it was so before.
        listens: removed from the history.
        feedback: removed likes, dislikes, exclusions and what takes them back.
        left: listens and feedback that are later than forgotten_at and stay. The user has no embedding until the next
            listen or rebuild.
        releases: whose embedding of the user was removed.
    """

    forgotten_at: int
    listens: int
    feedback: int
    left: int
    releases: tuple[str, ...]


class ForgottenTrack(NamedTuple):
    """What was removed of a track.

    Attributes:
        forgotten_at: the time up to which the track is forgotten, ms; later than asked where it was so before.
        releases: whose answer (and taggram) was removed.
        features: whether it was removed what the features were published from.
    """

    forgotten_at: int
    releases: tuple[str, ...]
    features: bool


async def forget_user(
    client: Any, user_id: str, forgotten_at: int, *, key_prefix: str = KEY_PREFIX, releases: Sequence[str]
) -> ForgottenUser:
    """Forget what is known of a user up to a time, in one atomic step.

    From then on no listen up to that time is added, and no embedding is written that was computed before this step.

    Args:
        client: a redis.asyncio client (or RedisCluster) that returns bytes.
        user_id: of the user.
        forgotten_at: the time, ms.
        key_prefix: of all keys.
        releases: those that may hold an embedding of the user.

    Raises:
        What stream.store.away.is_redis_away knows; forgetting again does no harm.
    """
    own = [key(user_id, prefix=key_prefix) for key in (forgotten_user_key, history_key, feedback_key)]
    keys = [*own, *(user_key(release, user_id, prefix=key_prefix) for release in releases)]
    with named(" or ".join(keys)):
        stands, listens, feedback, left, *removed = await script(client, "forget_user")(keys=keys, args=[forgotten_at])
    return ForgottenUser(stands, listens, feedback, left, _where(releases, removed))


async def forget_track(
    client: Any, track_id: str, forgotten_at: int, *, key_prefix: str = KEY_PREFIX, releases: Sequence[str]
) -> ForgottenTrack:
    """Forget the answers to uploads of a track up to a time.

    The mark is written first. TrackStore looks at it after each write, so that the answer of a worker that was hearing
    the track meanwhile is gone as well. Arguments and errors as of forget_user.
    """
    mark = forgotten_track_key(track_id, prefix=key_prefix)
    with named(mark):
        stands = await script(client, "mark_forgotten")(keys=[mark], args=[forgotten_at])
    removed = [await drop_track(client, release, track_id, stands, key_prefix=key_prefix) for release in releases]
    await Corrections(client, key_prefix=key_prefix).drop(track_id, stands)
    features = await client.delete(features_key(track_id, prefix=key_prefix))
    return ForgottenTrack(stands, _where(releases, removed), bool(features))


async def drop_track(
    client: Any, release: str, track_id: str, forgotten_at: int, *, key_prefix: str = KEY_PREFIX
) -> bool:
    """Delete a release's answer to an upload up to a time, and its taggram; returns whether there was one."""
    keys = track_keys(release, track_id, key_prefix=key_prefix)
    with named(" or ".join(keys)):
        return bool(await script(client, "drop_track")(keys=keys, args=[forgotten_at]))


def track_keys(release: str, track_id: str, *, key_prefix: str) -> list[str]:
    """The keys of a release's answer to a track: those of its slot that are written together."""
    keys = [track_key(release, track_id, prefix=key_prefix)]
    # An id that begins with "}" empties the hash tag, and a Cluster then puts the two keys into two slots: there is no
    # taggram.
    if not track_id.startswith("}"):
        keys.append(taggram_key(release, track_id, prefix=key_prefix))
    return keys


def _where(releases: Sequence[str], removed: Sequence[int]) -> tuple[str, ...]:
    return tuple(release for release, was_there in zip(releases, removed, strict=True) if was_there)
