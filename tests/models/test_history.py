import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.events import Listen
from models.history import (
    FEEDBACK_KINDS,
    HISTORY_KINDS,
    IS_NEGATIVE,
    IS_TARGET,
    IS_USABLE,
    KINDS,
    CountingRule,
    Signal,
    StoredHistory,
    feedback_at,
    feedback_member,
    feedback_score,
    history_member,
    read_histories,
    statement,
)

MINUTES_3 = 180_000
NOON = 1_767_225_600_000


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
        longest = 2**25 - 1
        played, duration = min(listen.played_ms, longest), min(listen.duration_ms, longest)
        return listen.at, KINDS.index(listen.kind), played, duration, listen.track_id.encode()

    assert (history_member(first) < history_member(second)) == (key(first) < key(second))


def test_the_same_listen_told_twice_is_one_member():
    like = {"user_id": "u", "track_id": "t", "kind": "like", "at": 1_700_000_000_000}
    assert history_member(Listen(event_id="a", **like)) == history_member(Listen(event_id="b", **like))


def test_feedback_is_a_small_score_and_five_bytes_before_the_track():
    at = 2**35 * 51 + 2**34 + 3  # binary: 110011, then 1, thirty-two 0 and 11
    like = Listen(event_id="a", user_id="u", track_id="t", kind="like", at=at)
    assert (feedback_score(at), feedback_member(like)) == (51, bytes([0b1000_0000, 0, 0, 0, 0b0110_0010]) + b"t")
    assert feedback_score(4_398_046_511_103) == 127  # in 2109; Redis takes 2 bytes for scores up to it


feedback_times = st.integers(2**35 * 52 - 2, 2**35 * 52 + 2) | st.integers(946_684_800_000, 2**42 - 1)


@given(listens, listens, feedback_times, feedback_times)
def test_feedback_sorts_by_time_kind_and_track_and_is_read_as_it_was_said(first, second, one_at, other_at):
    first, second = msgspec.structs.replace(first, at=one_at), msgspec.structs.replace(second, at=other_at)

    def key(listen):
        return listen.at, KINDS.index(listen.kind), listen.track_id.encode()

    def stored(listen):
        return feedback_score(listen.at), feedback_member(listen)

    assert (stored(first) < stored(second)) == (key(first) < key(second))
    score, member = stored(first)
    assert feedback_at(member, float(score)) == first.at
    assert statement(member) == bytes([KINDS.index(first.kind)]) + first.track_id.encode()


def listen(track_id: str, kind: str, at: int) -> Listen:
    lengths = {"played_ms": 200_000, "duration_ms": 210_000} if kind in ("play", "skip") else {}
    return Listen(event_id="e", user_id="u", track_id=track_id, kind=kind, at=NOON + at, **lengths)  # type: ignore[arg-type]


def stored(*listens: Listen) -> StoredHistory:
    members = sorted(history_member(one) for one in listens if one.kind in HISTORY_KINDS)
    said = sorted((feedback_score(one.at), feedback_member(one)) for one in listens if one.kind in FEEDBACK_KINDS)
    return StoredHistory(members, [(member, score) for score, member in said])


def standing(*listens: Listen) -> list[tuple[str, int]]:
    histories = read_histories([stored(*listens)])
    return [(track_id.decode(), int(at) - NOON) for track_id, at in zip(histories.track_ids, histories.at, strict=True)]


def test_a_remove_takes_back_the_listen_of_its_track_and_time_alone():
    plays = [listen("a", "play", 1), listen("b", "play", 1), listen("a", "play", 2)]
    assert standing(*plays, listen("a", "remove", 1)) == [("b", 1), ("a", 2)]


def test_an_exclude_takes_back_every_listen_of_its_track_up_to_its_time():
    plays = [listen("a", "play", 1), listen("a", "like", 2), listen("b", "play", 2), listen("a", "play", 4)]
    assert standing(*plays, listen("a", "exclude", 3)) == [("b", 2), ("a", 4)]


def test_of_likes_and_dislikes_of_a_track_the_last_stands_unless_it_takes_back():
    assert standing(listen("a", "like", 1), listen("a", "unlike", 2)) == []
    assert standing(listen("a", "like", 1), listen("a", "dislike", 2)) == [("a", 2)]
    assert standing(listen("a", "like", 1), listen("a", "unlike", 2), listen("a", "like", 3)) == [("a", 3)]


def test_what_is_taken_back_of_one_user_stands_with_another():
    histories = read_histories(
        [
            stored(listen("a", "like", 1), listen("b", "play", 2), listen("a", "unlike", 3)),
            stored(),
            stored(listen("a", "like", 1), listen("b", "play", 2), listen("b", "remove", 2)),
        ]
    )
    assert histories.track_ids == [b"b", b"a"]
    assert histories.offsets.tolist() == [0, 1, 1, 2]
    assert histories.played_ms.tolist() == [200_000, 0]
    assert histories.duration_ms.tolist() == [210_000, 0]
    np.testing.assert_array_equal(histories.kind, [0, 2])


def stands(one: Listen, told: list[Listen]) -> bool:
    """Whether a listen stands, by the words of the contract."""
    of_track = [other for other in told if other.track_id == one.track_id]
    removed = any(other.kind == "remove" and other.at == one.at for other in of_track)
    excluded = any(other.kind == "exclude" and other.at >= one.at for other in of_track)
    said = [other for other in of_track if other.kind in ("like", "unlike", "dislike", "undislike")]
    last = max(said, key=lambda other: (other.at, KINDS.index(other.kind)), default=None)
    overruled = one.kind in ("like", "dislike") and (last.at, last.kind) != (one.at, one.kind)
    return one.kind != "remove" and not removed and not excluded and not overruled


tracks = st.sampled_from(["a", "b", "ab", "one-same-end", "other-same-end"])
few = st.lists(
    st.builds(listen, tracks, st.sampled_from(KINDS), st.integers(0, 5)),
    max_size=14,
    unique_by=lambda one: (one.track_id, one.kind, one.at),
)


@given(st.lists(few, max_size=4))
def test_of_each_user_those_listens_stand_that_nothing_takes_back(users):
    histories = read_histories([stored(*told) for told in users])
    assert len(histories.offsets) == len(users) + 1
    for told, begin, end in zip(users, histories.offsets, histories.offsets[1:], strict=False):
        expected = [one for one in told if one.kind in HISTORY_KINDS and stands(one, told)]
        expected.sort(key=history_member)
        found = zip(
            histories.track_ids[begin:end],
            histories.at[begin:end].tolist(),
            histories.kind[begin:end].tolist(),
            strict=True,
        )
        assert [*found] == [(one.track_id.encode(), one.at, KINDS.index(one.kind)) for one in expected]


@given(listens)
def test_a_listen_is_read_from_its_member_as_it_was_told(one):
    histories = read_histories([StoredHistory([history_member(one)])])
    if one.kind == "remove":
        assert histories.track_ids == []
        return
    assert histories.track_ids == [one.track_id.encode()]
    longest = 2**25 - 1
    assert (histories.at[0], histories.kind[0]) == (one.at, KINDS.index(one.kind))
    assert histories.played_ms[0] == min(one.played_ms, longest)
    assert histories.duration_ms[0] == min(one.duration_ms, longest)


def test_nobody_has_no_histories():
    histories = read_histories([])
    assert (histories.offsets.tolist(), histories.track_ids) == ([0], [])
