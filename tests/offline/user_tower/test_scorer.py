import numpy as np

from models.history import Signal
from offline.user_tower.scorer import catalogue_scores, histories
from tests.offline.small_logs import log_of


def test_a_history_is_the_newest_listens_before_its_end_the_newest_last():
    log = log_of([[0, 1, 2, 3], [3, 1]], tracks=4, times=[[5, 6, 7, 8], [1, 9]],
                 signals=[[Signal.PLAY] * 4, [Signal.SKIP, Signal.PLAY]])  # fmt: skip
    row_of = np.array([2, 0, -1, 1])
    rows, signals, times_ms = histories(log, row_of, np.array([0, 1, 1]), np.array([4, 6, 4]), history=3)
    assert rows.tolist() == [[0, -1, 1], [-1, 1, 0], [-1, -1, -1]]
    assert signals.tolist() == [[Signal.PLAY] * 3, [0, Signal.SKIP, Signal.PLAY], [0, 0, 0]]
    assert times_ms.tolist() == [[6, 7, 8], [0, 1, 9], [0, 0, 0]]


def test_tracks_without_a_vector_cannot_be_recommended():
    embeddings, vectors = np.eye(2, dtype=np.float32), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    scores = catalogue_scores(embeddings, vectors, np.array([1, -1, 0]))
    assert scores.tolist() == [[3.0, -np.inf, 1.0], [4.0, -np.inf, 2.0]]
