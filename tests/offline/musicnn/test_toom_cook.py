from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SettingsError
from offline.musicnn.toom_cook import POINTS, rational_toom_cook, toom_cook

small_fractions = st.fractions(min_value=-5, max_value=5, max_denominator=6)


@st.composite
def algorithms(draw):
    m, r = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    points = draw(st.lists(small_fractions, min_size=m + r - 2, max_size=m + r - 2, unique=True))
    return m, r, points


def matrix_vector(rows, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in rows]


def correlation(taps, inputs):
    return [sum(tap * inputs[i + j] for j, tap in enumerate(taps)) for i in range(len(inputs) - len(taps) + 1)]


@given(algorithm=algorithms(), data=st.data())
def test_in_fractions_it_is_the_direct_correlation(algorithm, data):
    m, r, points = algorithm
    taps = data.draw(st.lists(small_fractions, min_size=r, max_size=r))
    inputs = data.draw(st.lists(small_fractions, min_size=m + r - 1, max_size=m + r - 1))
    output, kernel, transform = rational_toom_cook(m, r, points)
    products = [a * b for a, b in zip(matrix_vector(kernel, taps), matrix_vector(transform, inputs), strict=True)]
    assert matrix_vector(output, products) == correlation(taps, inputs)


@pytest.mark.parametrize(("m", "r"), POINTS)
def test_the_points_in_use_are_exact_in_float64_and_close_in_float32(m, r):
    rng = np.random.default_rng(m * 10 + r)
    taps, inputs = rng.standard_normal((r, 500)), rng.standard_normal((m + r - 1, 500))
    direct = np.array([(taps * inputs[i : i + r]).sum(axis=0) for i in range(m)])
    algorithm = toom_cook(m, r)
    assert (algorithm.output.shape, algorithm.kernel.shape, algorithm.data.shape) == (
        (m, m + r - 1),
        (m + r - 1, r),
        (m + r - 1, m + r - 1),
    )
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-3)):
        output, kernel, data = (matrix.astype(dtype) for matrix in (algorithm.output, algorithm.kernel, algorithm.data))
        fast = output @ ((kernel @ taps.astype(dtype)) * (data @ inputs.astype(dtype)))
        assert fast.dtype == dtype
        np.testing.assert_allclose(fast, direct, rtol=0, atol=tolerance)


def test_f_2_3_is_the_one_of_lavin_and_gray():
    # Section 4.1 of arXiv:1509.09308; rows may trade factors, so each product's rank-one part is compared.
    theirs = (
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    )
    ours = toom_cook(2, 3, [Fraction(0), Fraction(1), Fraction(-1)])
    parts = [np.einsum("ip,pj,pk->pijk", *matrices) for matrices in (theirs, (ours.output, ours.kernel, ours.data))]
    np.testing.assert_array_equal(parts[0], parts[1])


@pytest.mark.parametrize(("m", "r"), POINTS)
def test_rows_are_balanced_by_powers_of_two(m, r):
    _, kernel, data = rational_toom_cook(m, r, POINTS[m, r])
    balanced = toom_cook(m, r)
    np.testing.assert_array_less(np.abs(np.log2(np.linalg.norm(balanced.data, axis=1))), 0.5001)
    for row, scaled_kernel, scaled_data in zip(range(m + r - 1), balanced.kernel, balanced.data, strict=True):
        ratio = float(max(map(abs, data[row]))) / np.abs(scaled_data).max()
        assert np.log2(ratio) % 1 == 0
        np.testing.assert_allclose(scaled_kernel, np.array(kernel[row], float) * ratio, rtol=1e-15)


@pytest.mark.parametrize("points", [[0, 1], [0, 1, -1, 2], [0, 1, 1]], ids=["few", "many", "twice"])
def test_a_wrong_set_of_points_is_refused(points):
    with pytest.raises(SettingsError, match=r"F\(2, 3\) needs 3 different finite points"):
        toom_cook(2, 3, [Fraction(point) for point in points])


def test_a_tile_without_points_of_its_own_asks_for_them():
    with pytest.raises(SettingsError, match=r"F\(5, 3\) needs 6 different finite points, got \[\]"):
        toom_cook(5, 3)
