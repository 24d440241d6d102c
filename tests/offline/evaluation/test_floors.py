import dataclasses

import numpy as np
import pytest
from scipy import sparse

from models.history import Signal
from offline.evaluation import floors
from offline.evaluation.floors import (
    Ease,
    ItemKnn,
    Markov,
    Popularity,
    ease_weights,
    fit_floors,
    listeners,
    neighbours,
    popularity,
    rank_floor,
    transitions,
)
from offline.interactions.log import InteractionLog
from offline.ranking.examples import PROTOCOLS, Examples
from offline.ranking.rank import METRICS, rank
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


def scores(scorer, *history: int, signals=None):
    log = log_of([list(history)], tracks=5, signals=[signals] if signals else None)
    return scorer.scores(log, np.array([0]), np.array([len(history)]))[0]


def test_popularity_is_the_share_of_targets_and_tracks_without_training_cannot_be_recommended():
    shares = popularity(*four_users())
    np.testing.assert_allclose(shares, [3 / 8, 3 / 8, 1 / 8, 1 / 8, -np.inf], rtol=1e-6)
    np.testing.assert_array_equal(scores(Popularity(shares=shares), C), shares)


def test_markov_gives_what_followed_the_last_usable_listen_smoothed_by_popularity():
    log, split = four_users()
    follows, shares = transitions(log, split), popularity(log, split)
    expected = np.zeros((5, 5))
    expected[A, B], expected[B, C], expected[B, D], expected[B, A] = 2, 1, 1, 1
    np.testing.assert_array_equal(follows.toarray(), expected)
    markov = Markov(follows=follows, shares=shares)
    after_a = [(0 + 3 / 8) / 3, (2 + 3 / 8) / 3, (0 + 1 / 8) / 3, (0 + 1 / 8) / 3, -np.inf]
    np.testing.assert_allclose(scores(markov, D, A), after_a, rtol=1e-6)
    np.testing.assert_allclose(scores(markov, A, B, signals=[PLAY, SKIP]), after_a, rtol=1e-6)
    np.testing.assert_allclose(scores(markov, A, D), shares, rtol=1e-6)
    np.testing.assert_allclose(scores(markov), shares, rtol=1e-6)


def test_item_knn_sums_cosines_that_decay_with_age():
    log, split = four_users()
    listened, shares = listeners(log, split), popularity(log, split)
    ones = [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    np.testing.assert_array_equal(listened.toarray(), ones)
    near = neighbours(listened, keep=9)
    knn = ItemKnn(neighbours=near, decay=0.5, own_weight=0.25, shares=shares)
    a_b, a_c, a_d = 1.0, 1 / np.sqrt(6), 1 / np.sqrt(3)
    expected = [0.25 + 0.5 * a_c, a_b + 0.5 * a_c, a_c + 0.5 * 0.25, a_d, -np.inf]
    np.testing.assert_allclose(scores(knn, C, A), expected, rtol=0, atol=1.1e-6)
    np.testing.assert_allclose(scores(knn, C, D, A, signals=[PLAY, SKIP, PLAY]), expected, rtol=0, atol=1.1e-6)


def test_item_knn_looks_at_the_ten_newest_listens():
    log, split = four_users()
    knn = ItemKnn(
        neighbours=neighbours(listeners(log, split), keep=9),
        decay=1.0,
        own_weight=0.0,
        shares=popularity(log, split),
    )
    assert scores(knn, A, *[D] * 9)[C] == pytest.approx(1 / np.sqrt(6), abs=1e-5)
    assert scores(knn, A, *[D] * 10)[C] == pytest.approx(0.0, abs=1e-5)


def test_popularity_decides_between_tracks_that_nothing_else_tells_apart():
    log, split = four_users()
    shares = popularity(log, split)
    knn = ItemKnn(neighbours=neighbours(listeners(log, split), keep=9), decay=1.0, own_weight=0.0, shares=shares)
    assert np.argsort(-scores(knn), kind="stable").tolist() == [A, B, C, D, E]
    ease = Ease(weights=ease_weights(listeners(log, split), ridge=1.0), shares=shares)
    assert np.argsort(-scores(ease), kind="stable").tolist() == [A, B, C, D, E]


def random_listens(rng, users: int, tracks: int):
    return (rng.random((users, tracks)) < rng.beta(0.6, 2.0, tracks)).astype(np.float32)


@pytest.mark.parametrize("keep", [4, 100])
def test_neighbours_in_blocks_are_those_of_the_whole_matrix(keep: int):
    listened = random_listens(np.random.default_rng(0), 40, 23)
    listened[:, 7] = 0.0
    together = listened.T @ listened
    lengths = np.sqrt(np.diag(together))
    similar = together / np.maximum(lengths[:, None] * lengths, 1e-9)
    np.fill_diagonal(similar, 0.0)
    expected = np.zeros_like(similar)
    for row, values in enumerate(similar):
        best = np.argsort(-values, kind="stable")[:keep]
        expected[row, best] = values[best]
    found = neighbours(sparse.csr_array(listened), keep=keep, block_pairs=5 * 23)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_ease_is_its_closed_form():
    listened = random_listens(np.random.default_rng(1), 50, 12).astype(np.float64)
    precision = np.linalg.inv(listened.T @ listened + 30.0 * np.eye(12))
    expected = np.eye(12) - precision @ np.diag(1.0 / np.diag(precision))
    found = ease_weights(sparse.csr_array(listened), ridge=30.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    ease = Ease(weights=found[:5, :5], shares=np.full(5, 0.2, np.float32))
    np.testing.assert_allclose(scores(ease, A, C, A), expected[A, :5] + expected[C, :5], rtol=0, atol=3e-6)


def chains(*, users: int = 300, tracks: int = 60, length: int = 8, seed: int = 0) -> InteractionLog:
    """Everybody goes round a circle of tracks from a place of their own, some tracks more than others."""
    rng = np.random.default_rng(seed)
    starts = (tracks * rng.beta(1.0, 2.0, users)).astype(int)
    return log_of([[(start + step) % tracks for step in range(length)] for start in starts], tracks=tracks)


def recalls(log: InteractionLog) -> dict[str, float]:
    split = split_of(log, learned=[6] * len(log.users))
    examples = Examples.of(log, split, split.test)
    counted = examples.slices("discovery")["all"]
    return {
        floor["discovery"].name: float(
            rank_floor(floor, log, examples)["discovery"].values()[counted, METRICS.index("recall_at_10")].mean()
        )
        for floor in fit_floors(log, split)
    }


def test_every_floor_beats_popularity_where_there_is_something_to_learn():
    found = recalls(chains())
    assert list(found) == ["popularity", "markov", "item_knn", "ease"]
    assert found["markov"] > 0.95
    assert found["item_knn"] > 0.95
    assert found["popularity"] < 0.5


def test_no_floor_learns_anything_from_a_log_whose_tracks_are_permuted():
    log = chains()
    permuted = dataclasses.replace(log, track=np.random.default_rng(9).permutation(log.track))
    counts = np.bincount(permuted.track, minlength=60)
    chance = np.sort(counts)[-10:].sum() / counts.sum()
    error = np.sqrt(chance * (1 - chance) / len(log.users))
    for name, recall in recalls(permuted).items():
        assert recall < chance + 4 * error, name


def test_nothing_after_the_validation_part_changes_a_floor():
    log = chains(users=80)
    split = split_of(log, learned=[6] * 80)
    changed = log.track.copy()
    changed[split.test] = 3
    other = dataclasses.replace(log, track=changed)
    for one, two in zip(fit_floors(log, split), fit_floors(other, split), strict=True):
        for protocol in PROTOCOLS:
            np.testing.assert_array_equal(
                one[protocol].scores(log, np.arange(80), split.test),
                two[protocol].scores(other, np.arange(80), split.test),
            )


def test_settings_are_chosen_for_each_protocol_and_ranked_by_its_own():
    rng = np.random.default_rng(0)  # people who hear tracks of their own again and again
    log = log_of([rng.choice(rng.integers(0, 60, 4), 12).tolist() for _ in range(100)], tracks=60)
    split = split_of(log, learned=[10] * 100)
    examples = Examples.of(log, split, split.test)
    knn = next(floor for floor in fit_floors(log, split) if floor["replay"].name == "item_knn")
    assert knn["replay"].own_weight == 3.0
    assert knn["discovery"].own_weight == 0.0
    found = rank_floor(knn, log, examples)
    for protocol in PROTOCOLS:
        alone = rank(knn[protocol], log, examples, protocols=(protocol,))[protocol]
        np.testing.assert_array_equal(found[protocol].ranks, alone.ranks)


def test_ease_is_no_floor_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(floors, "EASE_TRACKS", 59)
    assert list(recalls(chains(users=40))) == ["popularity", "markov", "item_knn"]
