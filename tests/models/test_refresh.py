import numpy as np
import pytest

from models.events import Listen
from models.history import (
    FEEDBACK_KINDS,
    HISTORY_KINDS,
    Signal,
    StoredHistory,
    feedback_member,
    history_member,
    read_histories,
)
from models.refresh import embed_newest, read_newest, refresh
from models.user_tower import UserTower, load_user_tower
from tests.platform import taste

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


TRACKS = [f"t{number}" for number in range(30)]


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> UserTower:
    return load_user_tower(taste.write_tower(tmp_path_factory.mktemp("tower") / "mean", TRACKS, history=6))


def heard(*track_ids: str, kind: str = "play") -> StoredHistory:
    return stored(*(listen(track_id, kind, 1000 * at) for at, track_id in enumerate(track_ids)))


def test_users_are_embedded_by_the_newest_listens_of_known_tracks(tower: UserTower):
    histories = [heard(*TRACKS[:9]), heard("t1", "unknown", "t2"), heard()]
    refreshed = refresh(tower, histories)
    rows = tower.items.rows
    plays = [[Signal.PLAY] * 6]
    newest = tower.embed([rows(TRACKS[3:9])], plays, [[1000 * at for at in range(6)]])
    gap = tower.embed([rows(["t1", "t2"])], [[Signal.PLAY] * 2], [[0, 2000]])
    np.testing.assert_allclose(refreshed.embeddings, [newest[0], gap[0], taste.GLOBAL], atol=1e-6)
    assert refreshed.listens.tolist() == [9, 3, 0]
    assert refreshed.of_history.tolist() == [True, True, False]
    assert refreshed.event_time.tolist() == [NOON + 8000, NOON + 2000, 0]


def test_users_without_a_usable_listen_have_the_global_embedding(tower: UserTower):
    refreshed = refresh(tower, [heard("t1", "t2", kind="skip"), heard("unknown"), heard("t1", kind="dislike")])
    np.testing.assert_allclose(refreshed.embeddings, [taste.GLOBAL] * 3, atol=1e-6)
    assert not refreshed.of_history.any()
    assert refreshed.listens.tolist() == [2, 1, 1]


def test_a_track_without_a_learned_vector_counts_by_the_embedding_that_is_given(tower: UserTower):
    histories = [heard("t1", "new", "t2"), heard("other", "new"), heard("t3")]
    newest = read_newest(tower, histories)
    assert sorted(newest.unknown) == [b"new", b"other"]
    twin = np.array(tower.items.vectors[tower.items.rows(["t9"])[0]])
    given = embed_newest(tower, newest, {b"new": twin})
    as_if = refresh(tower, [heard("t1", "t9", "t2"), heard("unknown", "t9"), heard("t3")])
    np.testing.assert_allclose(given.embeddings, as_if.embeddings, atol=1e-6)
    assert given.of_history.all()
    without = refresh(tower, histories)
    np.testing.assert_array_equal(embed_newest(tower, newest, {}).embeddings, without.embeddings)
    assert without.of_history.tolist() == [True, False, True]


def test_an_unknown_track_older_than_what_the_tower_reads_is_not_asked_for(tower: UserTower):
    assert read_newest(tower, [heard("old", *TRACKS[:6]), heard("new", *TRACKS[:5])]).unknown == [b"new"]


def test_many_users_together_are_embedded_as_each_alone(tower: UserTower):
    rng = np.random.default_rng(0)
    histories = [heard(*rng.choice([*TRACKS, "unknown"], size)) for size in rng.integers(0, 12, 300)]
    together = refresh(tower, histories).embeddings
    alone = [refresh(tower, [history]).embeddings[0] for history in histories]
    np.testing.assert_allclose(together, alone, atol=1e-6)
