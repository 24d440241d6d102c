import numpy as np
import pytest

from models.events import Listen
from models.history import CountingRule, Signal, StoredHistory, feedback_member, feedback_score, history_member
from models.refresh import refresh
from models.user_tower import ItemTable, TowerManifest, UserTower, encode_ids

NOON = 1_767_225_600_000
GLOBAL = (0.0, 0.0, 1.0)


class Newest:
    """A network that answers with the vector of the newest listen, and notes what it was given."""

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.inputs = inputs
        return [inputs["vectors"][:, -1]]


@pytest.fixture
def tower() -> UserTower:
    vectors = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    manifest = TowerManifest(
        pooling="mean", dim=3, history=3, counting=CountingRule(), scale=1.0, global_embedding=GLOBAL, items=2,
        files={}, training={},
    )  # fmt: skip
    return UserTower(manifest, ItemTable(encode_ids(["a", "b"]), vectors), Newest())


def listen(track_id: str, at: int, kind: str = "play", played_ms: int = 200_000) -> Listen:
    lengths = {"played_ms": played_ms, "duration_ms": 210_000} if kind in ("play", "skip") else {}
    return Listen(event_id="e", user_id="u", track_id=track_id, kind=kind, at=NOON + at, **lengths)  # type: ignore[arg-type]


def stored(*listens: Listen, said: tuple[Listen, ...] = ()) -> StoredHistory:
    return StoredHistory(
        sorted(history_member(one) for one in listens),
        [(feedback_member(one), feedback_score(one.at)) for one in sorted(said, key=lambda one: one.at)],
    )


def test_users_are_embedded_from_the_listens_that_count_with_ages_from_the_newest(tower):
    refreshed = refresh(tower, [stored(listen("b", 1000), listen("a", 4000)), stored(listen("b", 0, "like"))])
    np.testing.assert_array_equal(refreshed.embeddings, [[1, 0, 0], [0, 1, 0]])
    assert refreshed.of_history.tolist() == [True, True]
    assert refreshed.listens.tolist() == [2, 1]
    assert refreshed.event_time.tolist() == [NOON + 4000, NOON]
    inputs = tower._session.inputs
    np.testing.assert_array_equal(inputs["signals"], [[0, Signal.PLAY, Signal.PLAY], [0, 0, Signal.LIKE]])
    np.testing.assert_array_equal(inputs["ages_s"], [[0, 3, 0], [0, 0, 0]])


def test_who_has_no_listen_that_places_them_gets_the_global_embedding(tower):
    nothing = stored()
    negative = stored(listen("a", 1, "skip"), listen("b", 2, played_ms=1000))
    unknown = stored(listen("nobody has heard of it", 3))
    taken_back = stored(listen("a", 4), said=(listen("a", 5, "exclude"),))
    refreshed = refresh(tower, [nothing, negative, unknown, taken_back])
    np.testing.assert_array_equal(refreshed.embeddings, [GLOBAL] * 4)
    assert not refreshed.of_history.any()
    assert refreshed.listens.tolist() == [0, 2, 1, 0]
    assert refreshed.event_time.tolist() == [0, NOON + 2, NOON + 3, NOON + 5]


def test_the_newest_listens_alone_reach_the_tower_and_all_are_counted(tower):
    refreshed = refresh(tower, [stored(*(listen("a", at) for at in range(5)), listen("b", 9))])
    assert refreshed.listens.tolist() == [6]
    np.testing.assert_array_equal(refreshed.embeddings, [[0, 1, 0]])
    np.testing.assert_array_equal(tower._session.inputs["ages_s"], [[0.006, 0.005, 0]])
