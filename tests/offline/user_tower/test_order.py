from itertools import pairwise

import numpy as np

from offline.user_tower.order import training_order
from tests.offline.small_logs import log_of, split_of

TIMES = [[5, 5, 5, 5, 6, 6, 9], [7, 7, 8, 8], [3]]
HISTORIES = [[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4], [5]]


def orders(*, learned, row_of=None, epochs=60):
    log = log_of(HISTORIES, tracks=6, times=TIMES)
    split = split_of(log, learned=learned)
    row_of = np.arange(6) if row_of is None else np.array(row_of)
    return log, [training_order(log, split, row_of, rng=np.random.default_rng(seed)) for seed in range(epochs)]


def test_listens_of_one_moment_come_in_every_order_and_others_in_their_own():
    log, found = orders(learned=[7, 4, 1])
    firsts = set()
    for order, offsets in found:
        assert offsets.tolist() == [0, 7, 11, 12]
        for start, end in pairwise(offsets):
            assert sorted(order[start:end]) == list(range(start, end))
            assert (np.diff(log.at[order[start:end]]) >= 0).all()
        assert (order[6], order[11]) == (6, 11)
        firsts.add(tuple(order[:4].tolist()))
    assert len(firsts) > 20  # of 24
    together = [
        sum(order.tolist().index(a) < order.tolist().index(b) for order, _ in found) for a, b in ((0, 3), (4, 5))
    ]
    assert all(15 < count < 45 for count in together)


def test_what_is_held_back_stays_out_even_where_it_shares_a_moment_with_what_trains():
    _, found = orders(learned=[2, 3, 0])
    for order, offsets in found:
        assert offsets.tolist() == [0, 2, 5, 5]
        assert sorted(order[:2]) == [0, 1]
        assert sorted(order[2:4]) == [7, 8]
        assert order[4] == 9


def test_listens_to_tracks_without_a_vector_leave_no_gap():
    log, found = orders(learned=[7, 4, 1], row_of=[0, 1, -1, 2, 3, -1])
    for order, offsets in found:
        assert offsets.tolist() == [0, 5, 8, 8]
        assert not {2, 5} & set(log.track[order].tolist())
