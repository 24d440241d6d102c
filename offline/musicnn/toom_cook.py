"""Toom-Cook convolution: m outputs of an r-tap filter from m + r - 1 multiplications instead of m * r.

Sources: A. Toom, Soviet Math. Doklady 3 (1963); S. Cook, thesis, Harvard (1966); S. Winograd, Arithmetic
Complexity of Computations, SIAM (1980), which shows that fewer multiplications cannot do; A. Lavin & S. Gray,
Fast Algorithms for Convolutional Neural Networks, CVPR 2016, arXiv:1509.09308, whose names A, B and G these
are; B. Barabasz, A. Anderson, K. Soodhalter & D. Gregg, arXiv:1803.10986 (2018), on points and scaling.

The algebra. With n = m + r - 1, polynomials h of m and g of r coefficients have a product s of n. Evaluate
both at n points, multiply value by value, interpolate; the last point is infinity, where a polynomial's value
is its leading coefficient:

    s = C ((V_m h) * (V_r g)),     V_k[p, i] = p^i     (the row of infinity: 0 ... 0 1)

For the finite points p, s(x) = sum over p of s(p) L_p(x) + s_infinity * product of all (x - p), where
L_p(x) = N_p(x) / N_p(p) and N_p(x) = product of (x - q) over the other finite points q: their coefficients
are the columns of C. What a filter does to data, y_i = sum over j of g_j d_(i+j), is the transpose of that
product in h (transposition principle), so that

    y = V_m^T ((V_r g) * (C^T d))  =  A^T ((G g) * (B^T d))

The divisions by N_p(p) are made in G, once for each filter, and leave polynomials with plain products as the
rows of B^T.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError

Rational = list[list[Fraction]]
Matrix = NDArray[np.float64]


def _points(text: str) -> tuple[Fraction, ...]:
    return tuple(Fraction(point) for point in text.split())


POINTS: Mapping[tuple[int, int], tuple[Fraction, ...]] = MappingProxyType(
    {
        (4, 4): _points("0 2 -2 1 -1 1/2"),
        (4, 7): _points("0 3/4 -3/4 2 -2 1/3 -1/3 5/4 -5/4"),
        (6, 6): _points("0 4/3 -4/3 1/3 -1/3 2/3 -2/3 1 -1 -4"),
        (6, 7): _points("0 1/4 -1/4 1 -1 3 -3 3/2 -3/2 3/4 -3/4"),
    }
)
"""The finite points in use for (m, r). Pairs of opposite signs, near 1 and of few bits, keep rounding errors
small (Barabasz et al.); these were the best of a search over such fractions in float32."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ToomCook:
    """The matrices of one algorithm, float64: y = output @ ((kernel @ taps) * (data @ inputs)).

    Attributes:
        output: A^T (m, n), where n = m + r - 1 is the number of inputs.
        kernel: G (n, r).
        data: B^T (n, n).
    """

    output: Matrix
    kernel: Matrix
    data: Matrix


def toom_cook(m: int, r: int, points: Sequence[Fraction] | None = None) -> ToomCook:
    """The algorithm for m outputs of r taps, its rows balanced for float32.

    A row of B^T is divided by the power of two nearest to its norm, and the same row of G multiplied by it:
    powers of two round nothing, and products of one magnitude lose the fewest digits when A^T adds them up.

    Args:
        m: outputs at a time.
        r: taps of the filter.
        points: the m + r - 2 finite points; POINTS[m, r] when None.

    Raises:
        SettingsError: there is another number of points, or one comes twice.
    """
    output, kernel, data = rational_toom_cook(m, r, POINTS.get((m, r), ()) if points is None else points)
    scale = np.array([[2.0 ** round(math.log2(sum(value**2 for value in row)) / 2)] for row in data])
    return ToomCook(output=_float64(output), kernel=_float64(kernel) * scale, data=_float64(data) / scale)


def rational_toom_cook(m: int, r: int, points: Sequence[Fraction]) -> tuple[Rational, Rational, Rational]:
    """A^T, G and B^T of the algorithm in exact fractions, not balanced. Arguments and errors as for toom_cook."""
    n = m + r - 1
    if len(points) != n - 1 or len(set(points)) != n - 1:
        raise SettingsError(f"F({m}, {r}) needs {n - 1} different finite points, got {list(map(str, points))}")
    others = [[q for q in points if q != p] for p in points]
    output = [[p**i for p in points] + [Fraction(i == m - 1)] for i in range(m)]
    kernel = [
        *(
            [p**i / math.prod((p - q for q in rest), start=Fraction(1)) for i in range(r)]
            for p, rest in zip(points, others, strict=True)
        ),
        [Fraction(i == r - 1) for i in range(r)],
    ]
    data = [*([*_with_roots(rest), Fraction(0)] for rest in others), _with_roots(points)]
    return output, kernel, data


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), from x^0 up."""
    polynomial = [Fraction(1)]
    for root in roots:
        by_x, by_root = [Fraction(0), *polynomial], [*polynomial, Fraction(0)]
        polynomial = [a - root * b for a, b in zip(by_x, by_root, strict=True)]
    return polynomial


def _float64(rows: Rational) -> Matrix:
    return np.array([[float(value) for value in row] for row in rows])
