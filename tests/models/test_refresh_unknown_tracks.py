"""Refreshes with a tower of random weights: users together, and tracks that the tower does not know."""

import numpy as np
import pytest

from models.events import Listen
from models.history import Signal, StoredHistory, history_member
from models.refresh import embed_newest, read_newest, refresh
from models.user_tower import UserTower, load_user_tower
from tests.conftest import TowerOf
from tests.platform import taste

NOON = 1_767_225_600_000
TRACKS = [f"t{number}" for number in range(30)]


@pytest.fixture(scope="module")
def tower(tower_of: TowerOf) -> UserTower:
    return load_user_tower(tower_of(TRACKS, history=6))


def heard(*track_ids: str) -> StoredHistory:
    return StoredHistory([
        history_member(Listen(
            event_id="e", user_id="u", track_id=track_id, kind="play", at=NOON + 1000 * at, played_ms=200_000,
            duration_ms=210_000,
        ))
        for at, track_id in enumerate(track_ids)
    ])  # fmt: skip


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
