import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.events import Listen
from models.history import IS_NEGATIVE, IS_TARGET, IS_USABLE, KINDS, CountingRule, Signal, history_member

MINUTES_3 = 180_000


def signal(kind, played=-1, duration=-1, **rule):
    return Signal(CountingRule(**rule).signals([KINDS.index(kind)], [played], [duration])[0])


@pytest.mark.parametrize(
    ("kind", "played", "duration", "expected"),
    [
        ("play", MINUTES_3, MINUTES_3, Signal.PLAY),
        ("play", MINUTES_3 // 2, MINUTES_3, Signal.PLAY),
        ("play", MINUTES_3 // 2 - 1, MINUTES_3, Signal.PARTIAL),
        ("play", 18_000, MINUTES_3, Signal.PARTIAL),
        ("play", 17_999, MINUTES_3, Signal.BRIEF),
        ("play", 10_000, 20_000, Signal.PLAY),
        ("play", 9_999, 12_000, Signal.BRIEF),
        ("play", 10_000, 30_000, Signal.PARTIAL),
        ("play", -1, -1, Signal.PLAY),
        ("play", -1, 200_000, Signal.PLAY),
        ("play", 9_999, -1, Signal.BRIEF),
        ("play", 10_000, -1, Signal.PLAY),
        ("skip", MINUTES_3, MINUTES_3, Signal.SKIP),
        ("like", -1, -1, Signal.LIKE),
        ("playlist_add", -1, -1, Signal.PLAYLIST_ADD),
        ("dislike", -1, -1, Signal.DISLIKE),
        ("unlike", -1, -1, Signal.NONE),
        ("undislike", -1, -1, Signal.NONE),
        ("remove", -1, -1, Signal.NONE),
        ("exclude", -1, -1, Signal.NONE),
    ],
)
def test_what_counts_hinges_on_half_a_tenth_and_ten_seconds(kind, played, duration, expected):
    assert signal(kind, played, duration) == expected


def test_the_hinges_are_settings():
    assert signal("play", 60_000, MINUTES_3, target_share=0.3) == Signal.PLAY
    assert signal("play", 30_000, MINUTES_3, input_share=0.2) == Signal.BRIEF
    assert signal("play", 5_000, 8_000, least_ms=0) == Signal.PLAY


def test_targets_and_negatives_never_overlap_and_partial_plays_are_neither():
    assert not (IS_TARGET & IS_NEGATIVE).any()
    assert set(np.flatnonzero(IS_TARGET)) == {Signal.PLAY, Signal.LIKE, Signal.PLAYLIST_ADD}
    assert set(np.flatnonzero(IS_NEGATIVE)) == {Signal.BRIEF, Signal.SKIP, Signal.DISLIKE}
    assert set(np.flatnonzero(IS_USABLE & ~IS_TARGET)) == {Signal.PARTIAL}


@given(st.sampled_from(KINDS), st.integers(0, 2**40), st.integers(0, 2**40))
def test_only_a_play_of_half_a_like_or_a_playlist_add_is_a_target(kind, played, duration):
    said = signal(kind, played, duration)
    heard = kind == "play" and 2 * played >= duration and played >= 10_000 and 10 * played >= duration
    assert IS_TARGET[said] == (heard or kind in ("like", "playlist_add"))


listens = st.builds(
    Listen,
    event_id=st.just("e"),
    user_id=st.just("u"),
    track_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    kind=st.sampled_from(KINDS),
    at=st.integers(1_700_000_000_000, 1_700_000_000_003),
    played_ms=st.integers(0, 2**33),
    duration_ms=st.integers(0, 2**33),
)


@given(listens, listens)
def test_members_sort_by_time_kind_lengths_and_track(first, second):
    def key(listen):
        longest = 2**24 - 1
        played, duration = min(listen.played_ms, longest), min(listen.duration_ms, longest)
        return listen.at, KINDS.index(listen.kind), played, duration, listen.track_id.encode()

    assert (history_member(first) < history_member(second)) == (key(first) < key(second))


def test_the_same_listen_told_twice_is_one_member():
    like = {"user_id": "u", "track_id": "t", "kind": "like", "at": 1_700_000_000_000}
    assert history_member(Listen(event_id="a", **like)) == history_member(Listen(event_id="b", **like))
