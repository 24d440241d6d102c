from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offline.reproduce.reference import majority, reference_guesses


class Patches:
    """A store whose tracks have windows of patches: (patches, columns) each."""

    def __init__(self, **windows: list[np.ndarray]) -> None:
        self._windows = windows

    def __getitem__(self, track: str) -> Any:
        return SimpleNamespace(starts_ms=range(len(self._windows[track])))

    def patch_max_pool(self, track: str, network: str, window: int) -> np.ndarray:
        assert network == "msd"
        return self._windows[track][window].astype(np.float16)


def near(place: float, count: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal([place, -place, 0.0], 0.1, (count, 3))


@pytest.mark.parametrize(
    ("guesses", "named"),
    [([2], 2), ([0, 2, 2, 1], 2), ([3, 1, 3, 1], 1), ([2, 1, 0], 0), ([9, 9, 4, 4, 0], 4)],
)
def test_a_track_is_what_most_of_its_patches_are_called_and_of_equals_the_first_in_the_order_of_the_genres(
    guesses, named
):
    assert majority(np.array(guesses)) == named


def test_tracks_are_guessed_by_the_patches_of_all_their_windows():
    store = Patches(
        low=[near(-1.0, 6, seed=1), near(-1.0, 6, seed=2)],
        high=[near(1.0, 12, seed=3)],
        mostly_high=[near(-1.0, 2, seed=4), near(1.0, 3, seed=5)],
        low_and_high=[near(1.0, 2, seed=6), near(-1.0, 2, seed=7)],
    )
    tests = ["mostly_high", "low_and_high", "high"]
    guesses, every = reference_guesses(store, ["high", "low"], np.array([1, 0]), tests, most_patches=24)
    assert (guesses.tolist(), every) == ([1, 0, 1], 1)
    guesses, every = reference_guesses(store, ["high", "low"], np.array([1, 0]), tests, most_patches=23)
    assert (guesses.tolist(), every) == ([1, 0, 1], 2)
