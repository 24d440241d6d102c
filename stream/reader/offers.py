"""Which tracks of a release are nearest to a user."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from models.contract import KEY_PREFIX, feedback_key, history_key
from models.history import KINDS, StoredHistory, read_histories, statement
from models.user_tower import UserTower

_LIKE, _UNLIKE, _UNDISLIKE = (KINDS.index(kind) for kind in ("like", "unlike", "undislike"))


def nearest_tracks(
    tower: UserTower, embedding: Sequence[float], *, count: int, without: Collection[str] = ()
) -> list[tuple[str, float]]:
    """The tracks with the greatest dot product, best first, each with it.

    Args:
        tower: whose item table is searched.
        embedding: (dim,) of a user.
        count: at most how many tracks.
        without: ids of tracks that are left out.
    """
    scores = tower.items.vectors @ np.asarray(embedding, np.float32)
    rows = tower.items.rows(without)
    scores[rows[rows >= 0]] = -np.inf
    best = np.argpartition(-scores, min(count, len(scores)) - 1)[:count]
    best = best[np.argsort(-scores[best], kind="stable")]
    return [(tower.items.track_id(row), float(scores[row])) for row in best.tolist() if np.isfinite(scores[row])]


def known_tracks(client: Any, user_id: str, *, key_prefix: str = KEY_PREFIX) -> set[str]:
    """The tracks that a user has heard, dislikes or has excluded: those that a recommender leaves out.

    Args:
        client: a redis.Redis or RedisCluster that returns bytes.
        user_id: as in the listens.
        key_prefix: the platform's TASTEWAVE_REDIS_KEY_PREFIX.
    """
    members: list[bytes] = client.zrange(history_key(user_id, prefix=key_prefix), 1, -1)  # at 0 stands the revision
    feedback: list[tuple[bytes, float]] = client.zrange(
        feedback_key(user_id, prefix=key_prefix), 0, -1, withscores=True
    )
    return known_of(members, feedback)


def known_of(members: Sequence[bytes], feedback: Sequence[tuple[bytes, float]]) -> set[str]:
    """The same from what Redis holds: members of tw:history:{user}, and of tw:feedback:{user} with their scores."""
    said: dict[bytes, int] = {}
    for member, _ in feedback:  # oldest first
        kind, *_ = said_of = statement(member)
        said[said_of[1:]] = kind
    refused = [track for track, kind in said.items() if kind not in (_LIKE, _UNLIKE, _UNDISLIKE)]
    heard = read_histories([StoredHistory(members, feedback)]).track_ids
    return {track.decode() for track in (*heard, *refused)}
