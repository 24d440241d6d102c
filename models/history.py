"""A user's listening history: which listens count and for what, and the one order in which they stand."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Annotated, Any, NamedTuple, get_args

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike, NDArray

from models.events import Kind, Listen

KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds of listens; their places here are their codes, in members and in encoded logs."""
_CODES = {kind: code for code, kind in enumerate(KINDS)}


class Signal(IntEnum):
    """What a listen says about the person and the track."""

    NONE = 0  # nothing: what takes a listen back, and the empty places of a short history
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
    dislike are. unlike, undislike, remove and exclude say nothing by themselves: they take other listens back.
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


LONGEST_MS = 2**25 - 1
"""What played_ms and duration_ms are cut to in a history: 9 h 19 min."""
LATEST_MS = 2**42 - 1
"""The latest `at` that a history can hold: in the year 2109."""

_HEAD = 12  # bytes of a member before the track_id, of 96 bits: at 42, kind 4, played_ms 25, duration_ms 25


def history_member(listen: Listen) -> bytes:
    """A listen as a member of the sorted set tw:history:{user}; the score of all listens there is 0.

        redis.zadd("tw:history:{u1}", {history_member(listen): 0})

    The member is `at` (42 bits), the code of the kind (4), played_ms and duration_ms (25 each, 0 where absent, at most
    LONGEST_MS), all big-endian, and then the track_id. Redis orders members of one score by their bytes, so a history's
    order is (at, kind, played_ms, duration_ms, track_id), offline as online, and the same listen told twice is one
    member. The numbers are packed closely, since ten million users have 640 million members, and a score of 0 takes
    Redis 2 bytes where a time takes 10.

    Raises:
        OverflowError: `at` is later than LATEST_MS.
    """
    played, duration = min(listen.played_ms or 0, LONGEST_MS), min(listen.duration_ms or 0, LONGEST_MS)
    head = listen.at << 54 | _CODES[listen.kind] << 50 | played << 25 | duration
    return head.to_bytes(_HEAD, "big") + listen.track_id.encode()


def member_at(member: bytes) -> int:
    """The `at` of a member of tw:history:{user}, in ms."""
    return int.from_bytes(member[:6], "big") >> 6


def history_members(
    at: ArrayLike, kinds: ArrayLike, played_ms: ArrayLike, duration_ms: ArrayLike, track_ids: Iterable[bytes]
) -> list[bytes]:
    """Many listens as history_member gives each of them.

    Args:
        at: (n,) ms, at most LATEST_MS.
        kinds: (n,) codes, places in KINDS.
        played_ms: (n,), 0 where absent.
        duration_ms: (n,), likewise.
        track_ids: (n,) in UTF-8.
    """
    at, kinds = np.asarray(at, np.int64), np.asarray(kinds, np.int64)
    played, duration = (np.minimum(np.asarray(length, np.int64), LONGEST_MS) for length in (played_ms, duration_ms))
    halves = np.stack([at << 6 | kinds << 2 | played >> 23, (played & (2**23 - 1)) << 25 | duration], axis=1)
    packed = halves.astype(">i8").view(np.uint8).reshape(-1, 2, 8)[:, :, 2:].tobytes()
    return [packed[_HEAD * place : _HEAD * (place + 1)] + track_id for place, track_id in enumerate(track_ids)]


HISTORY_KINDS: tuple[Kind, ...] = ("play", "skip", "like", "dislike", "playlist_add", "remove")
"""The kinds that have members in tw:history:{user}."""
FEEDBACK_KINDS: tuple[Kind, ...] = ("like", "unlike", "dislike", "undislike", "exclude")
"""The kinds that have members in tw:feedback:{user}."""

_REMOVE, _EXCLUDE = KINDS.index("remove"), KINDS.index("exclude")
_IS_SAID = np.isin(np.arange(len(KINDS)), [KINDS.index("like"), KINDS.index("dislike")])


_SAID_HEAD = 5  # bytes of a member of feedback before the track_id, of 40 bits: at 35, kind 5


def feedback_member(listen: Listen) -> bytes:
    """What a person says of a track as a member of the sorted set tw:feedback:{user}.

        redis.zadd("tw:feedback:{u1}", {feedback_member(listen): feedback_score(listen.at)}, gt=True)

    The score is the high 7 bits of `at`. The member is its low 35 bits and the code of the kind (5), big-endian, and
    then the track_id. So feedback stands in the order (at, kind, track_id), and Redis takes 2 bytes for a score up to
    127. Of each statement (kind and track) the latest member alone is kept.
    """
    head = (listen.at << 5 | _CODES[listen.kind]) & (2**40 - 1)
    return head.to_bytes(_SAID_HEAD, "big") + listen.track_id.encode()


def feedback_score(at: int) -> int:
    """The score of a member of tw:feedback:{user}, of its `at` in ms."""
    return at >> 35


def feedback_at(member: bytes, score: float) -> int:
    """The `at` of a member of tw:feedback:{user} with its score, in ms."""
    return int(score) << 35 | int.from_bytes(member[:_SAID_HEAD], "big") >> 5


def feedback_members(at: ArrayLike, kinds: ArrayLike, track_ids: Iterable[bytes]) -> list[tuple[bytes, int]]:
    """Many as feedback_member gives each of them, with their scores. Arguments as of history_members."""
    numbers = np.asarray(at, np.int64) << 5 | np.asarray(kinds, np.int64)
    heads = numbers.astype(">i8").view(np.uint8).reshape(-1, 8)[:, 8 - _SAID_HEAD :].tobytes()
    scores: list[int] = (numbers >> 40).tolist()
    return [
        (heads[_SAID_HEAD * place : _SAID_HEAD * (place + 1)] + track_id, scores[place])
        for place, track_id in enumerate(track_ids)
    ]


def statement(member: bytes) -> bytes:
    """What a member of tw:feedback:{user} says at whatever time: the code of its kind (1 byte), then the track_id."""
    return bytes([member[4] & 31]) + member[_SAID_HEAD:]


class StoredHistory(NamedTuple):
    """What Redis holds of a user.

    Attributes:
        members: of tw:history:{user} as history_member gives them, in Redis's order: oldest first.
        feedback: members of tw:feedback:{user} as feedback_member gives them, each with its score, in Redis's order:
            oldest first, and those of one millisecond by kind.
    """

    members: Sequence[bytes]
    feedback: Sequence[tuple[bytes, float]] = ()


class NewestEvents:
    """What Redis comes to hold of a user's events, in whatever order they come and however often.

        newest = NewestEvents(history=64, feedback=256)
        for listen in listens:
            newest.add(listen)
        newest.stored().members

    Args:
        history: how many members of tw:history:{user} are kept, the newest ones.
        feedback: likewise of tw:feedback:{user}.
    """

    def __init__(self, *, history: int, feedback: int) -> None:
        self._history, self._feedback = history, feedback
        self._members, self._said = set[bytes](), dict[bytes, tuple[float, bytes]]()

    def add(self, listen: Listen) -> None:
        """Add a listen of the user; one that is excluded changes nothing."""
        if listen.excluded:
            return
        if listen.kind in HISTORY_KINDS:
            self.add_stored(StoredHistory([history_member(listen)]))
        if listen.kind in FEEDBACK_KINDS:
            self.add_stored(StoredHistory([], [(feedback_member(listen), feedback_score(listen.at))]))

    def add_stored(self, stored: StoredHistory) -> None:
        """Add what Redis holds of the user."""
        self._members.update(stored.members)
        for member, score in stored.feedback:
            said = statement(member)
            self._said[said] = max((score, member), self._said.get(said, (0, b"")))
        if len(self._members) > 4 * self._history or len(self._said) > 4 * self._feedback:  # bounds the memory
            newest = self.stored()
            self._members = set(newest.members)
            self._said = {statement(member): (score, member) for member, score in newest.feedback}

    def stored(self) -> StoredHistory:
        """The newest ones."""
        feedback = [(member, score) for score, member in sorted(self._said.values())]
        return StoredHistory(sorted(self._members)[-self._history :], feedback[-self._feedback :])


class Histories(NamedTuple):
    """Histories without what was taken back, laid end to end. Those of user u are offsets[u] to offsets[u + 1].

    Attributes:
        offsets: (users + 1,) int64.
        at: (listens,) int64 ms.
        kind: (listens,) uint8, places in KINDS.
        played_ms, duration_ms: (listens,) int64.
        track_ids: (listens,) in UTF-8.
        event_time: (users,) int64 ms of the newest event, taken back or not; 0 without one.
    """

    offsets: NDArray[np.int64]
    at: NDArray[np.int64]
    kind: NDArray[np.uint8]
    played_ms: NDArray[np.int64]
    duration_ms: NDArray[np.int64]
    track_ids: list[bytes]
    event_time: NDArray[np.int64]


def read_histories(stored: Sequence[StoredHistory]) -> Histories:
    """The listens that stand.

        histories = read_histories([StoredHistory(redis.zrange("tw:history:{u1}", 0, -1))])
        histories.track_ids, histories.at

    A listen does not stand where a remove names its track and `at`, or where an exclude names its track at that time or
    later. Of the likes and dislikes of a track at most one stands: the last that was said of it, unless that takes
    something back. What does not stand keeps its place among the newest N of the set, so that the result does not
    depend on the order in which events arrive.
    """
    members = list(itertools.chain.from_iterable([user.members for user in stored]))
    packed, begins, ends = _joined(members, head=_HEAD)
    first, second = _numbers(packed, ">u8")[begins], _numbers(packed, ">u4")[begins + 8]  # of the 96 bits
    first, second = first.astype(np.int64), second.astype(np.int64)
    at, kind = first >> 22 & LATEST_MS, (first >> 18 & 15).astype(np.uint8)
    played, duration = (first & (2**18 - 1)) << 7 | second >> 25, second & LONGEST_MS
    offsets = _offsets([len(user.members) for user in stored])
    event_time = _newest(at, offsets)
    histories = Histories(offsets, at, kind, played, duration, [member[_HEAD:] for member in members], event_time)
    stands = kind != _REMOVE
    _take_back_removed(histories, stands)
    if any(user.feedback for user in stored):
        said = _read_said(stored)
        np.maximum(event_time, _newest(said.at, said.offsets), out=event_time)
        _take_back_said(histories, said, stands, tails=_tails(packed, begins + _HEAD, ends))
    before = np.concatenate([[0], np.cumsum(stands)])
    return Histories(
        offsets=before[offsets],
        at=at[stands],
        kind=kind[stands],
        played_ms=played[stands],
        duration_ms=duration[stands],
        track_ids=list(itertools.compress(histories.track_ids, stands.tolist())),
        event_time=event_time,
    )


class _Said(NamedTuple):
    """Feedback of users, laid end to end. That of user u is offsets[u] to offsets[u + 1], oldest first.

    Attributes:
        tails: (n,) as _tails gives them of the track_ids.
        members: as Redis holds them.
    """

    offsets: NDArray[np.int64]
    at: NDArray[np.int64]
    kind: NDArray[np.uint8]
    tails: NDArray[np.int64]
    members: list[bytes]


def _read_said(stored: Sequence[StoredHistory]) -> _Said:
    pairs = list(itertools.chain.from_iterable([user.feedback for user in stored]))
    members = [member for member, _ in pairs]
    packed, begins, ends = _joined(members, head=_SAID_HEAD)
    numbers = _numbers(packed, ">u4")[begins].astype(np.int64) << 8 | _numbers(packed, "u1")[begins + 4]
    high = np.array([score for _, score in pairs]).astype(np.int64)
    return _Said(
        offsets=_offsets([len(user.feedback) for user in stored]),
        at=high << 35 | numbers >> 5,
        kind=(numbers & 31).astype(np.uint8),
        tails=_tails(packed, begins + _SAID_HEAD, ends),
        members=members,
    )


def _take_back_removed(histories: Histories, stands: NDArray[np.bool_]) -> None:
    """Mark the listens that a remove of the same user takes back: they have its time, and stand before it."""
    offsets, at, track_ids = histories.offsets, histories.at, histories.track_ids
    for place in np.flatnonzero(~stands):
        first = offsets[np.searchsorted(offsets, place, side="right") - 1]
        for other in range(place - 1, first - 1, -1):
            if at[other] != at[place]:
                break
            stands[other] &= track_ids[other] != track_ids[place]


def _take_back_said(histories: Histories, said: _Said, stands: NDArray[np.bool_], *, tails: NDArray[np.int64]) -> None:
    """Mark the listens that the feedback of their users takes back.

    tails: (listens,) as _tails gives them of their track_ids.
    """
    offsets, at, kind, track_ids = histories.offsets, histories.at, histories.kind, histories.track_ids
    places = np.flatnonzero(_IS_SAID[kind])
    users = np.searchsorted(offsets, places, side="right") - 1
    of_users, excludes = np.repeat(np.arange(len(offsets) - 1), np.diff(said.offsets)), said.kind == _EXCLUDE
    # Most was said of tracks of which the history has no like or dislike, and numbers tell that sooner than bytes.
    may_be = np.zeros(2**16, bool)
    may_be[_slots(users, tails[places])] = True
    few = np.flatnonzero(excludes | may_be[_slots(of_users, said.tails)])
    keys = list(zip(of_users[few].tolist(), (said.members[place][_SAID_HEAD:] for place in few.tolist()), strict=True))
    last = dict(itertools.compress(zip(keys, few.tolist(), strict=True), (~excludes[few]).tolist()))  # the later stays
    wanted = zip(users.tolist(), map(track_ids.__getitem__, places.tolist()), strict=True)
    found = np.fromiter((last.get(key, -1) for key in wanted), np.int64, len(places))
    is_last = (said.at[found] == at[places]) & (said.kind[found] == kind[places])
    stands[places] &= is_last | (found < 0)
    excluded = {key: int(said.at[place]) for key, place in zip(keys, few.tolist(), strict=True) if excludes[place]}
    for user in {user for user, _ in excluded}:
        for place in range(*offsets[user : user + 2]):
            stands[place] &= at[place] > excluded.get((user, track_ids[place]), -1)


def _joined(members: Sequence[bytes], *, head: int) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]]:
    """Members behind each other, and where each begins and ends."""
    lengths = np.fromiter(map(len, members), np.int64, len(members))
    if np.any(lengths < head):
        raise ValueError(f"a member of {lengths.min()} bytes, which must have {head} before the track_id")
    offsets = _offsets(lengths)
    return b"".join([*members, bytes(8)]), offsets[:-1], offsets[1:]  # so that each number of _numbers ends inside


def _numbers(packed: bytes, dtype: str) -> NDArray[Any]:
    """The numbers that begin at each byte."""
    return np.ndarray(len(packed) + 1 - np.dtype(dtype).itemsize, dtype, packed, strides=(1,))


_MASKS = np.array([0, 2**8 - 1, 2**16 - 1, 2**24 - 1, 2**32 - 1])  # of the last bytes of a number


def _tails(packed: bytes, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last four bytes of pieces as numbers, fewer of a shorter piece. Equal pieces have equal ones."""
    return _numbers(packed, ">u4")[ends - 4].astype(np.int64) & _MASKS[np.minimum(ends - begins, 4)]


def _slots(users: NDArray[np.int64], tails: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of 16 bits; equal pairs have equal ones."""
    return (users * 40_503 + tails * 2_654_435_761) >> 16 & (2**16 - 1)


def _offsets(counts: ArrayLike) -> NDArray[np.int64]:
    """(n + 1,) where each of so many begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _newest(at: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(users,) the last `at` of each; 0 where there is none."""
    newest, some = np.zeros(len(offsets) - 1, np.int64), np.flatnonzero(np.diff(offsets))
    newest[some] = at[offsets[some + 1] - 1]
    return newest
