import numpy as np

from models.events import Listen
from models.history import FEEDBACK_KINDS, HISTORY_KINDS, StoredHistory, feedback_member, history_member, read_histories

NOON = 1_767_225_600_000


def listen(track_id: str, kind: str, at: int) -> Listen:
    lengths = {"played_ms": 200_000, "duration_ms": 210_000} if kind in ("play", "skip") else {}
    return Listen(event_id="e", user_id="u", track_id=track_id, kind=kind, at=NOON + at, **lengths)  # type: ignore[arg-type]


def stored(*listens: Listen) -> StoredHistory:
    members = sorted(history_member(one) for one in listens if one.kind in HISTORY_KINDS)
    feedback = {
        feedback_member(one): one.at for one in sorted(listens, key=lambda one: one.at) if one.kind in FEEDBACK_KINDS
    }
    return StoredHistory(members, list(feedback.items()))


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
