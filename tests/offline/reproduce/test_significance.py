"""The tests of a difference, against numbers that were worked out by hand."""

import math

import numpy as np
import pytest

from offline.reproduce.significance import Draws, mcnemar, rank_p, smallest_difference


def answers(*, both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of two recipes is right, on so many tracks of each kind."""
    kinds = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    one, other = np.array(kinds).T
    return one, other


def test_mcnemars_p_is_that_of_the_binomial_of_the_tracks_on_which_one_alone_is_right():
    told = mcnemar(*answers(both=50, first=1, second=8, neither=11))
    assert (told.tracks, told.gained, told.lost) == (70, 8, 1)
    assert told.p == pytest.approx(2 * (1 + 9) / 2**9)  # 9 choose 0 and 9 choose 1, both sides
    assert mcnemar(*answers(both=5, first=3, second=3, neither=0)).p == 1.0


def test_recipes_that_are_right_on_the_same_tracks_tell_nothing_of_how_often_they_would_differ():
    told = mcnemar(*answers(both=5, first=0, second=0, neither=5))
    assert (told.p, told.detectable) == (1.0, None)


def test_the_smallest_difference_is_the_one_for_which_so_many_tracks_are_needed():
    # Connor 1987: to find a difference of .10 where .20 of the pairs are discordant takes
    # (1.959964 sqrt(.20) + .841621 sqrt(.20 - .01))^2 / .01 = 154.6 pairs.
    needed = (1.959964 * math.sqrt(0.20) + 0.841621 * math.sqrt(0.19)) ** 2 / 0.01
    assert needed == pytest.approx(154.6, abs=0.1)
    assert smallest_difference(155, discordant=0.20) == pytest.approx(0.10, abs=0.0005)
    # where the difference is small beside the share: (1.96 + .84) sqrt(s / n)
    assert smallest_difference(1_000_000, discordant=0.20) == pytest.approx(2.801585 * math.sqrt(0.2 / 1e6), rel=1e-3)


def test_where_recipes_seldom_differ_a_few_tracks_show_no_difference_that_is_as_small_as_their_share():
    assert smallest_difference(290, discordant=1 / 290) > 1 / 290
    # All differences the same way: n d^2 = (1.96 sqrt(d) + .84 sqrt(d - d^2))^2
    found = smallest_difference(290, discordant=1 / 290)
    needed = (1.959964 * math.sqrt(found) + 0.841621 * math.sqrt(found - found**2)) ** 2 / found**2
    assert needed == pytest.approx(290, rel=1e-4)
    assert smallest_difference(2, discordant=0.5) == 1.0


def test_the_rank_p_counts_the_true_one_among_the_permuted():
    assert rank_p(0.9, [0.1 * number for number in range(9)] + [0.5] * 11) == pytest.approx(1 / 21)
    assert rank_p(0.5, [0.6, 0.5, 0.4]) == pytest.approx(3 / 4)  # one that is equal reaches it
    assert rank_p(0.5, [0.6] * 20) == 1.0


def test_the_interval_of_a_difference_draws_artists_whole_and_seeds():
    rng = np.random.default_rng(0)
    artists = np.repeat(np.arange(40), 5)
    of_artist = rng.random(40) < 0.6  # all tracks of an artist go right or wrong together
    right = np.tile(of_artist[artists], (3, 1))
    draws = Draws(artists, seeds=3, replicates=4000, seed=0)
    told = draws.accuracy(right)
    assert told.value == of_artist.mean()
    error = math.sqrt(told.value * (1 - told.value) / 40)  # 40 draws, and not 200 or 600
    assert (told.high - told.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    nothing = np.zeros_like(right)
    difference = draws.difference(nothing, right)
    assert difference.value == told.value
    assert difference.standard_error == pytest.approx(error, rel=0.1)
    assert difference.detectable == pytest.approx((1.959964 + 0.841621) * difference.standard_error, rel=1e-5)


def test_a_seed_that_differs_widens_the_interval():
    artists = np.arange(1000)
    right = np.zeros((2, 1000), bool)
    right[1] = True
    told = Draws(artists, seeds=2, replicates=2000, seed=0).accuracy(right)
    assert (told.value, told.low, told.high) == pytest.approx((0.5, 0.0, 1.0), abs=0.01)


def test_an_accuracy_on_a_part_counts_its_tracks_alone():
    right, part = np.array([True, True, False, False]), np.array([True, False, True, False])
    draws = Draws(np.arange(4), seeds=1, replicates=500, seed=0)
    assert draws.accuracy(right, part).value == 0.5
    assert draws.accuracy(right, ~part).value == 0.5
    assert draws.accuracy(right).value == 0.5
    assert draws.accuracy(right & part, part).value == 0.5
    assert draws.accuracy(right & part, ~part).value == 0.0
