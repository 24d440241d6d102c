import numpy as np
import pytest

from offline.ranking.intervals import Bootstrap, interval, leaf


def users_of(rng, *, users: int, each: int, spread: float):
    """Examples whose users share a hit rate of their own, .3 on average."""
    rate = rng.beta(0.3 / spread, 0.7 / spread, users)
    return np.repeat(np.arange(users), each), (rng.random((users, each)) < rate[:, None]).ravel().astype(float)


def bounds(users, hits, *, seed: int = 0):
    bootstrap = Bootstrap(users, replicates=300, seed=seed)
    replicates = bootstrap.means(hits[:, None], {"all": np.ones(len(hits), bool)})["all"][:, 0]
    return interval(hits.mean(), replicates)


def test_intervals_hold_the_truth_about_95_times_in_100_though_users_differ():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        low, high = bounds(*users_of(rng, users=80, each=6, spread=0.5))
        held += low <= 0.3 <= high
    assert 178 <= held <= 198


def test_an_interval_that_knows_of_users_is_wider_than_one_that_does_not():
    users, hits = users_of(np.random.default_rng(1), users=100, each=20, spread=1.0)
    low, high = bounds(users, hits)
    narrow_low, narrow_high = bounds(np.arange(len(hits)), hits)
    assert high - low > 2 * (narrow_high - narrow_low)


def test_intervals_are_the_same_for_the_same_seed():
    users, hits = users_of(np.random.default_rng(2), users=30, each=4, spread=0.3)
    assert bounds(users, hits) == bounds(users, hits)
    assert bounds(users, hits) != bounds(users, hits, seed=1)


def test_replicates_are_means_over_the_examples_of_drawn_users_within_each_slice():
    users, values = np.array([7, 7, 9, 3]), np.array([[1.0], [0.0], [1.0], [0.0]])
    bootstrap = Bootstrap(users, replicates=50, seed=3)
    found = bootstrap.means(values, {"all": np.ones(4, bool), "first": np.array([True, False, False, False])})
    rng = np.random.default_rng(3)
    for of_all, of_first in zip(found["all"][:, 0], found["first"][:, 0], strict=True):
        drawn = [[3, 7, 9][place] for place in rng.integers(3, size=3)]
        rows = [row for user in drawn for row in np.flatnonzero(users == user)]
        assert of_all == pytest.approx(values[rows].mean())
        assert np.isnan(of_first) == (7 not in drawn)
        assert 7 not in drawn or of_first == 1.0


def test_coverage_is_the_share_of_tracks_in_any_list_and_its_interval_lies_around_it():
    top = np.full((40, 10), -1, np.int32)
    top[:, 0], top[:, 1] = np.arange(40), 99
    top[5] = -1
    bootstrap = Bootstrap(np.arange(40), replicates=200, seed=0)
    share, replicates = bootstrap.coverage(top, tracks=200)
    assert share == 40 / 200
    assert replicates.mean() < 0.75 * share
    found = leaf(share, n=200, replicates=replicates)
    assert found["low"] < share < found["high"]
