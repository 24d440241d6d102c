import numpy as np

from models.contract import feedback_key, history_key
from models.events import Listen
from models.history import feedback_member, feedback_score, history_member
from models.user_tower import ItemTable, encode_ids
from stream.reader.offers import known_tracks, nearest_tracks

VECTORS = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]], np.float32)


class Tower:
    items = ItemTable(encode_ids(["a", "b", "c", "d"]), VECTORS)


def test_the_nearest_tracks_have_the_greatest_dot_products_without_those_left_out():
    nearest = nearest_tracks(Tower(), [0.6, 0.8], count=2)
    assert [(track, round(score, 5)) for track, score in nearest] == [("b", 0.96), ("c", 0.8)]
    kept = nearest_tracks(Tower(), [0.6, 0.8], count=9, without=["b", "unknown"])
    assert [track for track, _ in kept] == ["c", "a", "d"]


def listen(track_id: str, kind: str, at: int) -> Listen:
    lengths = {"played_ms": 200_000, "duration_ms": 210_000} if kind == "play" else {}
    return Listen(event_id="e", user_id="u", track_id=track_id, kind=kind, at=1_767_225_600_000 + at, **lengths)


class Client:
    """A Redis that holds one user."""

    def zrange(self, key: str, start: int, end: int, *, withscores: bool = False) -> list:
        if key == history_key("u"):
            members = [b"r", *map(history_member, [listen("heard", "play", 1), listen("gone", "play", 2)])]
            return members[start:]
        assert key == feedback_key("u")
        said = [
            listen("disliked", "dislike", 1),
            listen("gone", "exclude", 3),
            listen("forgiven", "dislike", 1),
            listen("forgiven", "undislike", 2),
            listen("liked", "like", 1),
        ]
        said.sort(key=lambda one: one.at)
        return [(feedback_member(one), float(feedback_score(one.at))) for one in said]


def test_what_was_heard_disliked_or_excluded_is_left_out():
    assert known_tracks(Client(), "u") == {"heard", "disliked", "gone"}
