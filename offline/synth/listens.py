"""What the users of a synthetic platform do: they open sessions, choose tracks, hear them out or skip, like or dislike.

A user chooses among a few tracks that come to mind, by the cosine of each track's point and the mood of the session.
How long the track is heard and what is said about it follows from the affinity: the cosine of the track's point and
the user's taste at that time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.history import KINDS
from offline.synth.catalogue import Catalogue, Float32, Float64, Int64, style_centres, unit
from offline.synth.listeners import Listeners
from offline.synth.settings import CHAIN, DAY_MS, SynthPlatform

_PLAY, _SKIP, _LIKE, _UNLIKE, _DISLIKE, _UNDISLIKE, _PLAYLIST_ADD, _REMOVE, _EXCLUDE = (
    KINDS.index(kind)
    for kind in ("play", "skip", "like", "unlike", "dislike", "undislike", "playlist_add", "remove", "exclude")
)
_CHOICES = 12  # tracks that come to mind before one is chosen
_FEEDBACK_SHARE = 0.08  # of the listens: neither play nor skip
_TAKEN_BACK_SHARE = 0.02  # of the feedback: unlike and undislike
_CORRECTED_SHARE = 0.01  # of the feedback: remove, and as much exclude
_PRIVATE_SHARE = 0.02  # of the sessions: what is done in them is marked as excluded
_BLOCK = 65_536  # listens worked on together: bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Sessions:
    """The sessions, user by user and oldest first: arrays of (sessions,) values; and the plays and skips in them.

    Attributes:
        user: numbers.
        begin_ms: counted from the start; a session waits where the user's last one is not over.
        style: that the session is in the mood for.
        taste: (sessions, dimensions), the user's at that time.
        mood: (sessions, dimensions), what the session is after.
        first_of_user: number of the first session of the same user.
        first: number of its first play or skip.
        of: (steps,) the session of each play or skip.
    """

    user: Int64
    begin_ms: Int64
    style: Int64
    taste: Float32
    mood: Float32
    first_of_user: Int64
    first: Int64
    of: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Listens:
    """The log, ordered by time: arrays of (listens,) values.

    Attributes:
        user, track: numbers.
        kind: numbers, places in KINDS.
        at_ms: milliseconds UTC.
        played_ms: of plays and skips; -1 of others.
        excluded: whether the session was private.
    """

    user: NDArray[np.int32]
    track: NDArray[np.int32]
    kind: NDArray[np.int8]
    at_ms: Int64
    played_ms: NDArray[np.int32]
    excluded: NDArray[np.bool_]


def draw_listens(
    settings: SynthPlatform,
    catalogue: Catalogue,
    listeners: Listeners,
    rng: Generator,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Listens:
    """Everything that the users do.

    Args:
        settings: how many listens on how many days, and how users choose.
        catalogue: the tracks.
        listeners: the users.
        rng: decides everything.
        advance: called with a number of listens whenever so many more are done.
    """
    feedback = round(_FEEDBACK_SHARE * settings.listens)
    steps = settings.listens - feedback  # plays and skips
    sessions = draw_sessions(settings, listeners, steps, rng)
    again = rng.random(steps) < settings.repeat_share
    again[sessions.first[sessions.first_of_user]] = False
    track = np.empty(steps, np.int32)
    for block, chosen in choose_new(settings, catalogue, sessions, np.flatnonzero(~again), rng):
        track[block] = chosen
        advance(len(block))
    for block, chosen in choose_again(settings, catalogue, sessions, again=again, track=track, rng=rng):
        track[block] = chosen
        advance(len(block))
    twice = np.flatnonzero(np.diff(track, prepend=-1) == 0)  # nobody plays one track on and on
    for block, chosen in choose_new(settings, catalogue, sessions, twice, rng):
        track[block] = chosen
    liking = 1.0 / (1.0 + np.exp(-8.0 * (affinities(catalogue, sessions, track) - 0.5)))
    kind, heard = react(liking, rng)
    played_ms = (heard * catalogue.duration_ms[track]).astype(np.int32)
    at_ms = settings.start_ms + end_times_ms(sessions, played_ms, rng)
    of, said, pause_ms = speak(liking, heard, feedback, rng)
    of, kind = np.append(np.arange(steps, dtype=np.int32), of), np.append(kind, said)
    at_ms = np.append(at_ms, at_ms[of[steps:]] + pause_ms)
    order = np.argsort(at_ms, kind="stable")
    of, kind = of[order], kind[order]
    private = rng.random(len(sessions.user)) < _PRIVATE_SHARE
    advance(feedback)
    return Listens(
        user=sessions.user[sessions.of[of]].astype(np.int32),
        track=track[of],
        kind=kind,
        at_ms=at_ms[order],
        played_ms=np.where((kind == _PLAY) | (kind == _SKIP), played_ms[of], np.int32(-1)),
        excluded=private[sessions.of[of]],
    )


def draw_sessions(settings: SynthPlatform, listeners: Listeners, steps: int, rng: Generator) -> Sessions:
    """Spread plays and skips over users by activity and days there, over sessions by chance, and set the moods."""
    weights = listeners.activity * (settings.days - listeners.joined_day)
    user_of_step = np.repeat(np.arange(settings.users), rng.multinomial(steps, weights / weights.sum()))
    begins = (rng.random(steps) < 1.0 / settings.session_length) | (np.diff(user_of_step, prepend=-1) > 0)
    first = np.flatnonzero(begins)
    user = user_of_step[first]
    joined = listeners.joined_day[user]
    day = joined + (settings.days - joined) * rng.random(len(first))
    day = day[np.lexsort((day, user))]
    late = (listeners.drift[user] * day / settings.days)[:, None]
    likes = (1.0 - late) * listeners.styles[0][user] + late * listeners.styles[1][user]
    likes = np.cumsum(0.9 * likes + 0.1 / len(CHAIN), axis=1)
    style = (likes[:, :-1] < rng.random((len(first), 1))).sum(axis=1)
    taste = unit((1.0 - late) * listeners.tastes[0][user] + late * listeners.tastes[1][user])
    mood = taste + rng.normal(0.0, 0.1, taste.shape)
    mood[:, : len(CHAIN)] += 0.5 * style_centres()[style]
    return Sessions(
        user=user,
        begin_ms=(day * DAY_MS).astype(np.int64),
        style=style,
        taste=taste.astype(np.float32),
        mood=unit(mood).astype(np.float32),
        first_of_user=np.searchsorted(user, user),
        first=first,
        of=np.cumsum(begins, dtype=np.int32) - np.int32(1),
    )


def choose_new(
    settings: SynthPlatform, catalogue: Catalogue, sessions: Sessions, steps: Int64, rng: Generator
) -> Iterator[tuple[Int64, Int64]]:
    """Tracks of what is out on the day, by popularity and novelty, then mood: (steps, their tracks) in blocks."""
    by_style = np.argsort(catalogue.style, kind="stable")
    edges = np.searchsorted(catalogue.style[by_style], np.arange(len(CHAIN) + 1))
    day_of = (sessions.begin_ms // DAY_MS).astype(np.int32)[sessions.of[steps]]
    steps = steps[np.argsort(day_of, kind="stable")]
    for day, of_day in enumerate(np.split(steps, np.cumsum(np.bincount(day_of, minlength=settings.days))[:-1])):
        age = day - catalogue.released_day
        novelty = settings.novelty * np.exp(-np.maximum(age, 0) / settings.novelty_days)
        reach = np.cumsum((catalogue.popularity * (age >= 0) * (1.0 + novelty))[by_style])
        ends = np.append(0.0, reach)[edges]
        low, high = np.append(ends[:-1], 0.0), np.append(ends[1:], ends[-1])  # of each style, and of any style
        for block in _blocks(of_day):
            session = sessions.of[block]
            of_mood = rng.random((len(block), _CHOICES)) < settings.mood_share
            pool = np.where(of_mood, sessions.style[session][:, None], len(CHAIN))
            place = low[pool] + (high - low)[pool] * (1.0 - 1e-9) * rng.random(pool.shape)
            minds = by_style[np.searchsorted(reach, place, side="right")]
            yield block, _choose(settings, catalogue, minds, sessions.mood[session], rng)


def choose_again(
    settings: SynthPlatform,
    catalogue: Catalogue,
    sessions: Sessions,
    *,
    again: NDArray[np.bool_],
    track: NDArray[np.int32],
    rng: Generator,
) -> Iterator[tuple[Int64, Int64]]:
    """Tracks that the user chose before, where `again`: the n-th last with a weight of about 1 / n, then mood."""
    new, new_so_far = np.flatnonzero(~again), np.cumsum(~again)
    for block in _blocks(np.flatnonzero(again)):
        session = sessions.of[block]
        known = new_so_far[block] - new_so_far[sessions.first[sessions.first_of_user[session]]] + 1
        back = (known[:, None] ** rng.random((len(block), 4))).astype(np.int64)
        minds = track[new[new_so_far[block][:, None] - back]]
        yield block, _choose(settings, catalogue, minds, sessions.mood[session], rng)


def _choose(settings: SynthPlatform, catalogue: Catalogue, minds: NDArray[Any], mood: Float32, rng: Generator) -> Int64:
    """One of each row of tracks that come to mind, by softmax of choosiness * affinity to the mood."""
    scores = settings.choosiness * np.einsum("nkd,nd->nk", catalogue.latent[minds], mood)
    scores -= np.log(rng.standard_exponential(minds.shape, np.float32))
    return minds[np.arange(len(minds)), scores.argmax(axis=1)]


def affinities(catalogue: Catalogue, sessions: Sessions, track: NDArray[np.int32]) -> Float32:
    """(steps,) cosine of each track and the taste of its listener at that time."""
    cosines = np.empty(len(track), np.float32)
    for block in _blocks(np.arange(len(track))):
        cosines[block] = np.einsum("nd,nd->n", catalogue.latent[track[block]], sessions.taste[sessions.of[block]])
    return cosines


def react(liking: NDArray[np.floating], rng: Generator) -> tuple[NDArray[np.int8], Float64]:
    """Kind (play or skip) of each, and the share of the track that is heard.

    With the probability `liking` half of the track or more is heard, else less.
    """
    stays = rng.random(len(liking)) < liking
    skips = ~stays & (rng.random(len(liking)) < 0.5)
    heard = np.where(stays, rng.uniform(0.5, 4.0, len(liking)).clip(max=1.0), rng.uniform(0.01, 0.49, len(liking)))
    return np.where(skips, _SKIP, _PLAY).astype(np.int8), heard * np.where(skips, 0.3, 1.0)


def end_times_ms(sessions: Sessions, played_ms: NDArray[np.int32], rng: Generator) -> Int64:
    """When each play or skip ends, counted from the start: one by one for a user, at least 5 s between them.

    A session waits where the user's last one is not over.
    """
    passed = np.cumsum(played_ms + 5000 + rng.exponential(5000.0, len(played_ms)).astype(np.int64))
    before = np.append(0, passed)[sessions.first]
    busy = before - before[sessions.first_of_user]
    apart = sessions.user * (busy.max() + sessions.begin_ms.max() + 1)  # no user's maximum reaches the next user
    begin = np.maximum.accumulate(sessions.begin_ms - busy + apart) - apart + busy
    return passed + (begin - before)[sessions.of]


def speak(
    liking: NDArray[np.floating], heard: Float64, count: int, rng: Generator
) -> tuple[NDArray[np.int32], NDArray[np.int8], Int64]:
    """Exactly `count` of feedback: the play or skip that each follows, its kind, and how long after (ms).

    What is heard is liked and added to playlists, what is left is disliked, the more often the surer the liking. A few
    plays and skips are removed again, and after a few others the track is excluded.
    """
    back, few = round(_TAKEN_BACK_SHARE * count), round(_CORRECTED_SHARE * count)
    weights = np.where(heard >= 0.5, liking**2, 0.5 * (1.0 - liking) ** 2)
    race = rng.standard_exponential(len(liking)) / weights  # the first to arrive are a sample without replacement
    of = np.sort(np.argpartition(race, count)[: count - back])
    kept = rng.random(len(of)) < 0.25
    said = np.where(heard[of] < 0.5, _DISLIKE, np.where(kept, _PLAYLIST_ADD, _LIKE))
    corrected = rng.choice(len(of), 2 * few, replace=False)
    said[corrected[:few]], said[corrected[few:]] = _REMOVE, _EXCLUDE
    regret = rng.choice(np.flatnonzero((said == _LIKE) | (said == _DISLIKE)), back, replace=False)
    taken_back = np.where(said[regret] == _LIKE, _UNLIKE, _UNDISLIKE)
    return (
        np.append(of, of[regret]).astype(np.int32),
        np.append(said, taken_back).astype(np.int8),
        np.append(np.where(said == _REMOVE, 0, 1000), np.full(back, 3000)),  # a remove names the time of its listen
    )


def _blocks(rows: Int64) -> Iterator[Int64]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
