import numpy as np

from models.history import Signal
from offline.user_tower.start import spectral_start
from tests.offline.small_logs import log_of, split_of


def start(log, split, *, dim=3):
    return spectral_start(log, split, np.arange(len(log.tracks)), items=len(log.tracks), dim=dim, seed=0)


def test_tracks_of_the_same_people_start_close_and_others_far():
    log = log_of([[0, 1, 2], [0, 1, 2, 2], [1, 2, 0], [3, 4], [4, 3], [3, 4, 4]], tracks=5)
    cosines = (vectors := start(log, split_of(log, learned=[3, 4, 3, 2, 2, 3]))) @ vectors.T
    assert (cosines[:3, :3] > 0.95).all()
    assert (cosines[3:, 3:] > 0.95).all()
    assert (np.abs(cosines[:3, 3:]) < 0.1).all()


def test_the_test_part_and_what_was_turned_away_from_do_not_count():
    histories = [[0, 1, 2], [0, 1, 3], [0, 1, 4], [2, 3, 4]]
    skips = [[Signal.PLAY, Signal.PLAY, Signal.SKIP]] * 3 + [[Signal.PLAY] * 3]
    found = []
    for later in (2, 3, 4):
        log = log_of([*histories[:3], [2, 3, later]], tracks=5, signals=skips)
        found.append(start(log, split_of(log, learned=[3, 3, 3, 2])))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert found[0][0] @ found[0][1] > 0.95
    assert abs(found[0][0] @ found[0][2]) < 0.5


def test_a_catalogue_smaller_than_the_space_starts_too():
    log = log_of([[0, 1], [1, 0]], tracks=2)
    vectors = start(log, split_of(log, learned=[2, 2]), dim=40)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
