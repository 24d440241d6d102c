import numpy as np
import pytest

from models.events import Listen
from models.history import CountingRule, Signal, StoredHistory, feedback_member, history_member
from models.refresh import embed_newest, read_newest, refresh
from models.user_tower import ItemTable, TowerManifest, UserTower, encode_ids, load_user_tower
from tests.platform import taste

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
        sorted(history_member(one) for one in listens), [(feedback_member(one), one.at) for one in said]
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


TRACKS = [f"t{number}" for number in range(30)]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> UserTower:
    return load_user_tower(taste.write_tower(tmp_path_factory.mktemp("tower") / "mean", TRACKS, history=6))


def heard(*track_ids: str, kind: str = "play") -> StoredHistory:
    return stored(*(listen(track_id, 1000 * at, kind) for at, track_id in enumerate(track_ids)))


def test_users_are_embedded_by_the_newest_listens_of_known_tracks(learned: UserTower):
    histories = [heard(*TRACKS[:9]), heard("t1", "unknown", "t2"), heard()]
    refreshed = refresh(learned, histories)
    rows = learned.items.rows
    plays = [[Signal.PLAY] * 6]
    newest = learned.embed([rows(TRACKS[3:9])], plays, [[1000 * at for at in range(6)]])
    gap = learned.embed([rows(["t1", "t2"])], [[Signal.PLAY] * 2], [[0, 2000]])
    np.testing.assert_allclose(refreshed.embeddings, [newest[0], gap[0], taste.GLOBAL], atol=1e-6)
    assert refreshed.listens.tolist() == [9, 3, 0]
    assert refreshed.of_history.tolist() == [True, True, False]
    assert refreshed.event_time.tolist() == [NOON + 8000, NOON + 2000, 0]


def test_users_without_a_usable_listen_have_the_global_embedding(learned: UserTower):
    refreshed = refresh(learned, [heard("t1", "t2", kind="skip"), heard("unknown"), heard("t1", kind="dislike")])
    np.testing.assert_allclose(refreshed.embeddings, [taste.GLOBAL] * 3, atol=1e-6)
    assert not refreshed.of_history.any()
    assert refreshed.listens.tolist() == [2, 1, 1]


def test_a_track_without_a_learned_vector_counts_by_the_embedding_that_is_given(learned: UserTower):
    histories = [heard("t1", "new", "t2"), heard("other", "new"), heard("t3")]
    newest = read_newest(learned, histories)
    assert sorted(newest.unknown) == [b"new", b"other"]
    twin = np.array(learned.items.vectors[learned.items.rows(["t9"])[0]])
    given = embed_newest(learned, newest, {b"new": twin})
    as_if = refresh(learned, [heard("t1", "t9", "t2"), heard("unknown", "t9"), heard("t3")])
    np.testing.assert_allclose(given.embeddings, as_if.embeddings, atol=1e-6)
    assert given.of_history.all()
    without = refresh(learned, histories)
    np.testing.assert_array_equal(embed_newest(learned, newest, {}).embeddings, without.embeddings)
    assert without.of_history.tolist() == [True, False, True]


def test_an_unknown_track_older_than_what_the_tower_reads_is_not_asked_for(learned: UserTower):
    assert read_newest(learned, [heard("old", *TRACKS[:6]), heard("new", *TRACKS[:5])]).unknown == [b"new"]


def test_many_users_together_are_embedded_as_each_alone(learned: UserTower):
    rng = np.random.default_rng(0)
    histories = [heard(*rng.choice([*TRACKS, "unknown"], size)) for size in rng.integers(0, 12, 300)]
    together = refresh(learned, histories).embeddings
    alone = [refresh(learned, [history]).embeddings[0] for history in histories]
    np.testing.assert_allclose(together, alone, atol=1e-6)
