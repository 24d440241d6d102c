"""What an encoder learns from: where a person was when they liked a track, that track, and tracks they did not like.

A person is where the user tower puts them by what they had heard strictly before the moment. Tracks that are held out
are unknown to the tower here, so that nothing of them is in any place of a person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.history import IS_NEGATIVE, IS_TARGET, IS_USABLE
from models.user_tower import UserTower
from offline.interactions.log import InteractionLog
from offline.ranking.embeddings import histories
from offline.ranking.examples import ends_before

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_AT_ONCE = 8192  # users of a forward pass
_DRAWS = 20  # of a track that somebody has not heard, before it is given up


class Placed(NamedTuple):
    """People in taste space.

    Attributes:
        vectors: (n, dim) float32, unit norm.
        of_history: (n,) whether a listen counted; else it is the global embedding.
    """

    vectors: Float32
    of_history: Bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Liked:
    """Tracks that people liked: plays, likes and playlist_adds that count as targets of a user tower.

    Attributes:
        users: (n,) places in the log's users.
        tracks: (n,) places in the log's tracks.
        at: (n,) moments, ms.
        vectors: (n, dim) where the person was strictly before the moment.
    """

    users: Int64
    tracks: Int64
    at: Int64
    vectors: Float32


class Batch(NamedTuple):
    """Pairs of a step.

    Attributes:
        users, liked, at: (n,) of Liked.
        vectors: (n, dim) of Liked.
        disliked: (n, negatives) places in the log's tracks.
        counts: (n, negatives) whether it is a negative: False where nothing unheard was found.
    """

    users: Int64
    liked: Int64
    at: Int64
    vectors: Float32
    disliked: Int64
    counts: Bool


def place_people(
    tower: UserTower,
    log: InteractionLog,
    row_of: Int64,
    users: Int64,
    ends: Int64,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Placed:
    """Where users (n,) were after the listens before positions (n,) of the log.

    Args:
        tower: that places them.
        log: of their listens.
        row_of: (tracks,) of the tower's item table; -1 for a track that is not to count.
        users: places in the log's users.
        ends: where their histories end.
        advance: is told how many are done.
    """
    vectors = np.empty((len(users), tower.manifest.dim), np.float32)
    of_history = np.empty(len(users), bool)
    for first in range(0, len(users), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        rows, signals, at = histories(log, row_of, users[some], ends[some], history=tower.manifest.history)
        vectors[some] = tower.embed(rows, signals, at)
        of_history[some] = (IS_USABLE[signals] & (rows >= 0)).any(axis=1)
        advance(len(vectors[some]))
    return Placed(vectors, of_history)


def liked_tracks(
    tower: UserTower,
    log: InteractionLog,
    row_of: Int64,
    trained: Bool,
    *,
    until_ms: int | None,
    most: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Liked:
    """The liked tracks of a log that an encoder learns from; those of people without a history then are left out.

    Args:
        tower: as for place_people, like what follows.
        log: likewise.
        row_of: likewise.
        trained: (tracks,) whether a track may be learned from.
        until_ms: only what was before this moment is learned from, if it is given.
        most: where there are more, they are drawn.
        seed: of the draw.
        advance: as for place_people.
    """
    wanted = trained[log.track] & IS_TARGET[log.signal]
    if until_ms is not None:
        wanted &= log.at < until_ms
    positions: Int64 = np.flatnonzero(wanted)
    if len(positions) > most:
        positions = np.sort(np.random.default_rng(seed).choice(positions, most, replace=False))
    users, at = log.user_of(positions), np.asarray(log.at[positions])
    vectors, known = place_people(tower, log, row_of, users, ends_before(log, positions, at), advance=advance)
    tracks = log.track[positions].astype(np.int64)
    return Liked(users=users[known], tracks=tracks[known], at=at[known], vectors=vectors[known])


class Pairs:
    """Draws liked and disliked tracks.

    Disliked are the dislikes, skips and plays that were soon broken off of the same person, of tracks that the person
    did not like at another time. Whoever has none gets tracks unheard up to the moment, as popular as the liked ones.

    Args:
        log: of the listens.
        liked: what is drawn from.
        trained: (tracks,) whether a track may be learned from.
        until_ms: only dislikes before this moment count, if it is given.
    """

    def __init__(self, log: InteractionLog, liked: Liked, trained: Bool, *, until_ms: int | None) -> None:
        self.liked = liked
        self._tracks = len(log.tracks)
        positions: Int64 = np.flatnonzero(trained[log.track])
        keys = self._key(log.user_of(positions), log.track[positions])
        self._heard, first = np.unique(keys, return_index=True)  # the first of a user's listens is the earliest
        self._heard_at: Int64 = log.at[positions[first]]
        signals = log.signal[positions]
        told = IS_NEGATIVE[signals] if until_ms is None else IS_NEGATIVE[signals] & (log.at[positions] < until_ms)
        turned_from = np.setdiff1d(keys[told], keys[IS_TARGET[signals]])
        self._turned_from: Int64 = turned_from % self._tracks
        self._offsets = np.searchsorted(turned_from, np.arange(len(log.users) + 1) * self._tracks)

    def unheard(self, users: Int64, tracks: Int64, at: Int64) -> Bool:
        """Whether users had no listen of tracks up to moments, that one included; all of one shape."""
        if not len(self._heard):
            return np.ones(tracks.shape, bool)
        keys = self._key(users, tracks)
        places = np.minimum(np.searchsorted(self._heard, keys), len(self._heard) - 1)
        return (self._heard[places] != keys) | (self._heard_at[places] > at)

    def draw(self, rng: np.random.Generator, *, count: int, negatives: int) -> Batch:
        """Draw liked tracks, and so many negatives for each."""
        liked = self.liked
        drawn = rng.integers(len(liked.users), size=count)
        users, at = liked.users[drawn], liked.at[drawn]
        shape = (count, negatives)
        of_users, of_at = np.broadcast_to(users[:, None], shape), np.broadcast_to(at[:, None], shape)
        disliked = self._popular(rng, shape)
        for _ in range(_DRAWS):
            if (counts := self.unheard(of_users, disliked, of_at)).all():
                break
            disliked = np.where(counts, disliked, self._popular(rng, shape))
        else:
            counts = self.unheard(of_users, disliked, of_at)
        first, told = self._offsets[of_users], self._offsets[of_users + 1] - self._offsets[of_users]
        if (told > 0).any():
            places = np.minimum(first + rng.integers(np.maximum(told, 1)), len(self._turned_from) - 1)
            disliked = np.where(told > 0, self._turned_from[places], disliked)
        return Batch(users, liked.tracks[drawn], at, liked.vectors[drawn], disliked, counts | (told > 0))

    def _popular(self, rng: np.random.Generator, shape: tuple[int, int]) -> Int64:
        return self.liked.tracks[rng.integers(len(self.liked.tracks), size=shape)]

    def _key(self, users: NDArray[np.integer], tracks: NDArray[np.integer]) -> Int64:
        return users.astype(np.int64) * self._tracks + tracks
