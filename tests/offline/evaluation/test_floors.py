import dataclasses

import numpy as np
import pytest

from models.history import Signal
from offline.evaluation import floors
from offline.evaluation.floors import (
    FLOORS,
    EaseFloor,
    FrequencyFloor,
    ItemKnnFloor,
    PopularityFloor,
    Training,
    TransitionsFloor,
    fit_floor,
)
from offline.evaluation.measures import Judged
from offline.evaluation.together import ease_weights, listeners
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split
from offline.ranking.examples import PROTOCOLS, Examples
from offline.ranking.intervals import Bootstrap
from offline.ranking.rank import METRICS
from tests.offline.small_logs import log_of, split_of

PLAY, SKIP, PARTIAL = Signal.PLAY, Signal.SKIP, Signal.PARTIAL
A, B, C, D, E = range(5)


def four_users():
    """A, B and C, and D, are learned from; E is only played after the training part, A is skipped by the last user."""
    log = log_of(
        [[A, B, C, D], [A, B, D, E], [B, A], [C, A, C]],
        tracks=5,
        signals=[[PLAY] * 4, [PLAY] * 4, [PLAY] * 2, [PARTIAL, SKIP, PLAY]],
    )
    return log, split_of(log, learned=[3, 3, 2, 2])


def fitted(kind, **settings):
    return kind.fit(Training.of(*four_users()), settings)


def scores(scorer, *history: int, signals=None):
    log = log_of([list(history)], tracks=5, signals=[signals] if signals else None)
    return scorer.scores(log, np.array([0]), np.array([len(history)]))[0]


def assert_scores(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.1e-6)


def test_popularity_is_the_share_of_targets_and_tracks_without_training_cannot_be_recommended():
    expected = [3 / 8, 3 / 8, 1 / 8, 1 / 8, -np.inf]
    np.testing.assert_allclose(Training.of(*four_users()).shares, expected, rtol=1e-6)
    found = scores(fitted(PopularityFloor), C)
    np.testing.assert_allclose(found / found[0], np.array(expected) / expected[0], rtol=1e-6)


def test_item_knn_sums_cosines_that_decay_with_age():
    log, split = four_users()
    ones = [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    np.testing.assert_array_equal(listeners(log, split).toarray(), ones)
    knn = fitted(ItemKnnFloor, neighbours=9, decay=0.5, own_weight=0.25)
    a_b, a_c, a_d = 1.0, 1 / np.sqrt(6), 1 / np.sqrt(3)
    highest = a_b + 0.5 * a_c
    expected = [0.5 * a_c / highest + 0.25, 1.0, a_c / highest + 0.5 * 0.25, a_d / highest, -np.inf]
    assert_scores(scores(knn, C, A), expected)
    assert_scores(scores(knn, C, D, A, signals=[PLAY, SKIP, PLAY]), expected)


def test_item_knn_looks_at_the_ten_newest_listens():
    knn = fitted(ItemKnnFloor, neighbours=9, decay=1.0, own_weight=0.0)
    d_a, a_c = 1 / np.sqrt(3), 1 / np.sqrt(6)
    assert scores(knn, A, *[D] * 9)[C] == pytest.approx(a_c / (9 * d_a + 1.0), abs=1e-5)
    assert scores(knn, A, *[D] * 10)[C] == pytest.approx(0.0, abs=1e-5)


def test_transitions_follow_the_direction_of_listens_and_fade_with_their_distance():
    transitions = fitted(TransitionsFloor, power=0.5, pair_decay=0.5, decay=0.8, own_weight=0.0)
    expected = np.zeros((5, 5))
    expected[A, [B, C, D]] = [2.0, 0.5, 0.5]  # A B C, A B D: one after the other, and over one
    expected[B, [A, C, D]] = [1.0, 1.0, 1.0]
    expected /= np.sqrt([1.0, 2.0, 1.5, 1.5, 1.0])  # each column's sum
    np.testing.assert_allclose(transitions.learned.toarray(), expected, rtol=1e-6)
    said = expected[B] + 0.8 * expected[A]
    assert_scores(scores(transitions, A, B)[:4], said[:4] / said.max())
    assert_scores(scores(transitions, A, B, D, signals=[PLAY, PLAY, SKIP])[:4], said[:4] / said.max())
    assert scores(transitions, A, B)[E] == -np.inf


def test_transitions_are_scored_from_the_ten_newest_listens():
    transitions = fitted(TransitionsFloor, power=0.0, pair_decay=0.5, decay=1.0, own_weight=0.0)
    assert scores(transitions, A, *[D] * 9)[B] == pytest.approx(1.0, abs=1e-5)
    assert scores(transitions, A, *[D] * 10)[B] == pytest.approx(0.0, abs=1e-5)


def test_personal_frequency_counts_what_the_user_heard_the_newest_the_most():
    assert_scores(scores(fitted(FrequencyFloor, power=1.0), A, C, A), [1.0, 0.0, (1 / 2) / (1 + 1 / 3), 0.0, -np.inf])
    assert_scores(scores(fitted(FrequencyFloor, power=0.0), A, C, A), [1.0, 0.0, 0.5, 0.0, -np.inf])
    heard = scores(fitted(FrequencyFloor, power=0.0), D, C, D, signals=[SKIP, PLAY, SKIP])
    assert_scores(heard, [0.0, 0.0, 1.0, 0.0, -np.inf])


def test_ease_scores_a_history_that_decays():
    weights = ease_weights(listeners(*four_users()), ridge=30.0)
    ease = fitted(EaseFloor, ridge=30.0, decay=0.5, own_weight=0.0)
    said = 1.25 * weights[A] + 0.5 * weights[C]
    assert_scores(scores(ease, A, C, A)[:4], said[:4] / said.max())
    ease = fitted(EaseFloor, ridge=30.0, decay=1.0, own_weight=0.0)
    assert_scores(
        scores(ease, A, *[C] * 30)[:4], ((weights[A] + 30 * weights[C]) / (30 * weights[C] + weights[A]).max())[:4]
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (PopularityFloor, {}),
        (FrequencyFloor, {"power": 0.5}),
        (ItemKnnFloor, {"neighbours": 9, "decay": 1.0, "own_weight": 1.0}),
        (TransitionsFloor, {"power": 0.5, "pair_decay": 0.8, "decay": 1.0, "own_weight": 1.0}),
        (EaseFloor, {"ridge": 1.0, "decay": 0.9, "own_weight": 1.0}),
    ],
)
def test_popularity_decides_between_tracks_that_nothing_else_tells_apart(kind, settings):
    assert np.argsort(-scores(fitted(kind, **settings)), kind="stable").tolist() == [A, B, C, D, E]


def chains(*, users: int = 300, tracks: int = 60, length: int = 8, seed: int = 0) -> InteractionLog:
    """Everybody goes round a circle of tracks from a place of their own, some tracks more than others."""
    rng = np.random.default_rng(seed)
    starts = (tracks * rng.beta(1.0, 2.0, users)).astype(int)
    return log_of([[(start + step) % tracks for step in range(length)] for start in starts], tracks=tracks)


def best_of(kind, log: InteractionLog, split: Split):
    return fit_floor(kind, Training.of(log, split), Examples.of(log, split, split.valid))


def judged_of(log: InteractionLog, split: Split) -> Judged:
    bootstrap = Bootstrap(log.user_of(split.test), replicates=100, seed=0)
    return Judged.of(log, split, split.test, bootstrap=bootstrap)


def recalls(log: InteractionLog, split: Split, *, history="before_moment", protocol="discovery") -> dict[str, float]:
    judged = judged_of(log, split)
    examples = judged.examples if history == "before_moment" else judged.stood
    assert examples is not None
    counted = examples.slices(protocol)["all"]
    found = {}
    for kind in FLOORS:
        ranked = judged.rank(best_of(kind, log, split))[history][protocol]
        found[kind.name] = float(ranked.values()[counted, METRICS.index("recall_at_10")].mean())
    return found


def test_the_floors_of_a_chain_find_what_comes_next():
    log = chains()
    found = recalls(log, split_of(log, learned=[6] * len(log.users)))
    assert list(found) == ["popularity", "personal_frequency", "item_knn", "transitions", "ease"]
    assert min(found["item_knn"], found["transitions"], found["ease"]) > 0.95
    assert found["popularity"] == found["personal_frequency"] < 0.5  # nobody hears a track again


def test_no_floor_learns_anything_from_a_log_whose_tracks_are_permuted():
    log = chains()
    permuted = dataclasses.replace(log, track=np.random.default_rng(9).permutation(log.track))
    counts = np.bincount(permuted.track, minlength=60)
    chance = np.sort(counts)[-10:].sum() / counts.sum()
    error = np.sqrt(chance * (1 - chance) / len(log.users))
    for name, recall in recalls(permuted, split_of(log, learned=[6] * len(log.users))).items():
        assert recall < chance + 4 * error, name


def rising(*, users: int = 200, tracks: int = 60, seed: int = 0) -> InteractionLog:
    """Everybody adds three albums at random, each of six tracks at one moment: their ids rise within it."""
    rng = np.random.default_rng(seed)
    albums = [[sorted(rng.choice(tracks, 6, replace=False).tolist()) for _ in range(3)] for _ in range(users)]
    times = [[moment for moment in (1000, 2000, 3000) for _ in range(6)]] * users
    return log_of([[track for album in of_user for track in album] for of_user in albums], tracks=tracks, times=times)


class Rising:
    """Knows that ids rise: of the tracks after the last one of the history, the next ones first."""

    name = "rising"

    def scores(self, log, users, ends):
        last = np.where(ends > log.offsets[users], log.track[np.maximum(ends - 1, 0)], -1)
        return (-((np.arange(len(log.tracks)) - last[:, None] - 1) % len(log.tracks))).astype(np.float32)


def test_nobody_leads_in_a_log_whose_ids_rise_within_seconds():
    log = rising()
    split = split_of(log, learned=[6] * len(log.users), valid=6)  # an album for each of the three parts
    judged = judged_of(log, split)
    ranked = judged.rank(dict.fromkeys(PROTOCOLS, Rising()))
    recall = {history: of["replay"].values()[:, METRICS.index("recall_at_10")].mean() for history, of in ranked.items()}
    chance = 10 / len(log.tracks)
    error = np.sqrt(chance * (1 - chance) / len(log.users))  # of a user's six examples as of one
    assert recall["as_it_stood"] > chance + 10 * error
    assert abs(recall["before_moment"] - chance) < 4 * error
    for name, reached in recalls(log, split, protocol="replay").items():
        assert abs(reached - chance) < 4 * error, name


def test_nothing_after_the_validation_part_changes_a_floor():
    log = chains(users=80)
    split = split_of(log, learned=[6] * 80)
    changed = log.track.copy()
    changed[split.test] = 3
    other = dataclasses.replace(log, track=changed)
    for kind in FLOORS:
        one, two = best_of(kind, log, split), best_of(kind, other, split)
        for protocol in PROTOCOLS:
            assert one[protocol].settings == two[protocol].settings
            np.testing.assert_array_equal(
                one[protocol].scores(log, np.arange(80), split.test),
                two[protocol].scores(other, np.arange(80), split.test),
            )


def again_and_again() -> tuple[InteractionLog, Split]:
    """People who hear tracks of their own again and again."""
    rng = np.random.default_rng(0)
    log = log_of([rng.choice(rng.integers(0, 60, 4), 12).tolist() for _ in range(100)], tracks=60)
    return log, split_of(log, learned=[10] * 100)


@pytest.mark.parametrize("kind", [ItemKnnFloor, TransitionsFloor, EaseFloor])
def test_settings_are_chosen_for_each_protocol(kind):
    best = best_of(kind, *again_and_again())
    assert best["replay"].settings["own_weight"] > 0.0
    assert best["discovery"].settings["own_weight"] == 0.0


def test_the_settings_of_a_floor_are_those_that_validate_best_one_after_the_other():
    log, split = again_and_again()
    training, examples = Training.of(log, split), Examples.of(log, split, split.valid)

    def ndcg(**settings):
        floor = ItemKnnFloor.fit(training, settings)
        judged = judged_of(log, dataclasses.replace(split, test=split.valid))
        ranked = judged.rank(dict.fromkeys(PROTOCOLS, floor))["before_moment"]["replay"]
        return ranked.values()[:, METRICS.index("ndcg_at_10")].mean()

    chosen = {"neighbours": 1000, "decay": 0.8, "own_weight": 0.0}
    for name, values in (("own_weight", (0.0, 0.3, 1.0, 3.0)), ("neighbours", (1000, 50)), ("decay", (0.8, 0.5, 0.95))):
        chosen[name] = max(values, key=lambda value: ndcg(**chosen | {name: value}))
    assert fit_floor(ItemKnnFloor, training, examples)["replay"].settings == chosen


def test_ease_is_no_floor_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch):
    log = chains(users=4)
    assert all(kind.fits(log) for kind in FLOORS)
    monkeypatch.setattr(floors, "EASE_TRACKS", 59)
    assert [kind.name for kind in FLOORS if not kind.fits(log)] == ["ease"]
