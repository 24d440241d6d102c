import numpy as np
import pytest
from scipy import sparse

from models.history import Signal
from offline.evaluation.together import REACH, ease_weights, neighbours, transitions
from tests.offline.small_logs import log_of, split_of


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


def test_listens_of_one_moment_follow_each_other_in_both_directions_by_half():
    log = log_of([[0, 1, 2, 3]], tracks=4, times=[[1, 5, 5, 9]])
    found = transitions(log, split_of(log, learned=[4]), decay=0.5, power=0.0, keep=9)
    expected = [[0, 1, 0.5, 0.25], [0, 0, 0.5, 0.5], [0, 0.5, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found.toarray(), expected)


def test_transitions_reach_ten_listens():
    log = log_of([list(range(14))], tracks=14)
    found = transitions(log, split_of(log, learned=[14]), decay=1.0, power=0.0, keep=99).toarray()
    assert REACH == 10
    np.testing.assert_array_equal(found[0], [0] + [1] * 10 + [0] * 3)


def test_transitions_keep_the_strongest_followers_of_each_track():
    log = log_of([[0, 1, 2, 3]], tracks=4)
    found = transitions(log, split_of(log, learned=[4]), decay=0.5, power=0.0, keep=2).toarray()
    np.testing.assert_array_equal(found, [[0, 1, 0.5, 0], [0, 0, 1, 0.5], [0, 0, 0, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("block_pairs", [1, 200, 10**6])
def test_transitions_in_blocks_are_those_of_a_loop_over_pairs(block_pairs: int):
    rng = np.random.default_rng(3)
    histories = [rng.integers(0, 9, rng.integers(1, 30)).tolist() for _ in range(20)]
    times = [np.sort(rng.integers(0, 20, len(history))).tolist() for history in histories]
    signals = [rng.choice([Signal.PLAY, Signal.PARTIAL, Signal.SKIP], len(history)).tolist() for history in histories]
    log = log_of(histories, tracks=9, times=times, signals=signals)
    learned = [int(rng.integers(0, len(history) + 1)) for history in histories]
    expected = np.zeros((9, 9))
    for history, at, signal, end in zip(histories, times, signals, learned, strict=True):
        heard = [(t, m) for t, m, s in zip(history[:end], at, signal, strict=False) if s != Signal.SKIP]
        for first, (source, then) in enumerate(heard):
            for distance, (target, later) in enumerate(heard[first + 1 : first + 11]):
                share = 0.5 if then == later else 1.0
                expected[source, target] += share * 0.7**distance
                if then == later:
                    expected[target, source] += share * 0.7**distance
    expected /= np.maximum(expected.sum(axis=0), 1e-9) ** 0.25
    found = transitions(
        log, split_of(log, learned=learned), decay=0.7, power=0.25, keep=99, block_pairs=block_pairs
    ).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
