"""A user's listening history: which listens count and for what, and the one order in which they stand."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Annotated, get_args

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike, NDArray

from models.events import Kind, Listen

KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds of listens; their places here are their codes, in members and in encoded logs."""

_LONGEST_MS = 2**32 - 1


class Signal(IntEnum):
    """What a listen says about the person and the track."""

    NONE = 0  # nothing: unlike and undislike, and the empty places of a short history
    PLAY = 1  # heard at least half
    PARTIAL = 2
    BRIEF = 3  # turned away from
    SKIP = 4
    LIKE = 5
    DISLIKE = 6
    PLAYLIST_ADD = 7


TARGETS = (Signal.PLAY, Signal.LIKE, Signal.PLAYLIST_ADD)
"""What a user tower learns to foresee."""
NEGATIVES = (Signal.BRIEF, Signal.SKIP, Signal.DISLIKE)
"""Part of a history, never foreseen."""

IS_TARGET = np.isin(np.arange(len(Signal)), TARGETS)
"""(8,) bool by signal."""
IS_NEGATIVE = np.isin(np.arange(len(Signal)), NEGATIVES)
"""(8,) bool by signal."""
IS_USABLE = np.isin(np.arange(len(Signal)), (*TARGETS, Signal.PARTIAL))
"""(8,) bool by signal: a history with one of these places its user."""

_OF_KIND = np.array(
    [
        {"like": Signal.LIKE, "dislike": Signal.DISLIKE, "skip": Signal.SKIP, "playlist_add": Signal.PLAYLIST_ADD}.get(
            kind, Signal.NONE
        )
        for kind in KINDS
    ],
    np.uint8,
)
_PLAY = KINDS.index("play")


class CountingRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which listens count, and for what; part of a release, and the same in training and in the stream.

        like, play = KINDS.index("like"), KINDS.index("play")
        CountingRule().signals([like, play, play], [-1, 200_000, 5_000], [-1, 210_000, 210_000])
        # [Signal.LIKE, Signal.PLAY, Signal.BRIEF]

    A like, a playlist_add and a play of at least target_share of the track are targets. A shorter play is input
    only, unless it is under least_ms or under input_share of the track: then it is a negative, as skip and
    dislike are. unlike and undislike say nothing.
    """

    target_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of the track's length from which on a play is a target.")
    ] = 0.5
    input_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of the track's length below which a play is a negative.")
    ] = 0.1
    least_ms: Annotated[
        int, Meta(ge=0, description="Milliseconds below which a play is a negative, however short the track.")
    ] = 10_000

    def signals(self, kinds: ArrayLike, played_ms: ArrayLike, duration_ms: ArrayLike) -> NDArray[np.uint8]:
        """The signal of each listen.

        Args:
            kinds: (n,) codes, places in KINDS.
            played_ms: (n,) of plays; -1 where a log does not tell, which counts as heard.
            duration_ms: (n,) of the tracks played; -1 where a log does not tell: then least_ms alone decides.

        Returns:
            (n,) codes of Signal.
        """
        kinds, played, duration = np.asarray(kinds), np.asarray(played_ms), np.asarray(duration_ms)
        signals = _OF_KIND[kinds]
        told = (played >= 0) & (duration >= 0)
        brief = ((played >= 0) & (played < self.least_ms)) | (told & (played < self.input_share * duration))
        heard = ~told | (played >= self.target_share * duration)
        of_play = np.where(brief, Signal.BRIEF, np.where(heard, Signal.PLAY, Signal.PARTIAL))
        return np.where(kinds == _PLAY, of_play, signals).astype(np.uint8)


_MEMBER = struct.Struct(">QBII")


def history_member(listen: Listen) -> bytes:
    """A listen as a member of the sorted set tw:history:{user}; its score there is listen.at.

        redis.zadd("tw:history:{u1}", {history_member(listen): listen.at})

    The member is `at`, the code of the kind, played_ms and duration_ms (0 where absent, at most 49 days), all
    big-endian, and then the track_id. `at` is part of it because a set holds a member once, and people hear a track
    again. Redis orders members of one score by their bytes, so a history's order is (at, kind, played_ms,
    duration_ms, track_id), offline as online, and the same listen told twice is one member.
    """
    played, duration = (min(length or 0, _LONGEST_MS) for length in (listen.played_ms, listen.duration_ms))
    return _MEMBER.pack(listen.at, KINDS.index(listen.kind), played, duration) + listen.track_id.encode()
