import numpy as np
import pytest

from offline.genre.trust import Bin, expected_calibration_error, reliability, risk_coverage


def test_guesses_stand_in_bins_of_equal_width_with_the_wilson_interval_of_their_share():
    said = np.array([0.05, 0.72, 0.78, *[0.75] * 8, 1.0])
    right = np.array([False, True, True, *[True] * 6, False, False, True])
    low, middle, high = reliability(said, right)
    assert (low.said, low.right, low.share) == (0.05, 0.0, pytest.approx(1 / 12))
    assert middle == pytest.approx((0.75, 0.8, 0.49016, 0.94331, 10 / 12), abs=1e-4)  # 8 of 10: Wilson (1927)
    assert (high.said, high.right) == (1.0, 1.0)


def test_tracks_that_were_asked_about_twice_count_once_for_the_interval():
    once = reliability(np.full(10, 0.75), np.arange(10) < 8)[0]
    twice = reliability(np.full(20, 0.75), np.arange(20) % 10 < 8, repeats=2)[0]
    assert once == pytest.approx(twice)


def test_the_expected_calibration_error_is_the_mean_gap_over_guesses():
    bins = (Bin(0.9, 0.5, 0.0, 1.0, 0.25), Bin(0.4, 0.5, 0.0, 1.0, 0.75))
    assert expected_calibration_error(bins) == pytest.approx(0.25 * 0.4 + 0.75 * 0.1)


def test_probabilities_of_which_the_truth_was_drawn_have_nearly_no_calibration_error():
    rng = np.random.default_rng(0)
    said = rng.uniform(0.0, 1.0, 100_000)
    right = rng.random(100_000) < said
    bins = reliability(said, right)
    assert expected_calibration_error(bins) < 0.006
    assert all(one.low <= one.said <= one.high or abs(one.said - one.right) < 0.01 for one in bins)
    assert expected_calibration_error(reliability(said**3, right)) > 0.1


def test_risk_grows_from_the_surest_guesses_on_and_what_is_spoken_against_is_never_answered():
    confidence = np.array([0.9, 0.5, 0.8, 0.7, 0.99])
    right = np.array([True, False, False, True, False])
    asked = np.array([True, True, True, True, False])
    expected = ((0.2, 0.0), (0.4, 1 / 2), (0.6, 1 / 3), (0.8, 2 / 4))
    assert np.array(risk_coverage(confidence, right, asked)) == pytest.approx(np.array(expected))
    assert risk_coverage(confidence, right, np.zeros(5, bool)) == ()
