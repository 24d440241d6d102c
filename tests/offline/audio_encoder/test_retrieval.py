import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from offline.audio_encoder.retrieval import ColdTracks, figure


def cold(liked: np.ndarray, **changes) -> ColdTracks:
    people, tracks = liked.shape
    values = {"people": np.eye(people, 40, dtype=np.float32), "active": np.zeros(people, np.int64)} | changes
    return ColdTracks(tracks=np.arange(tracks), liked=liked, **values)


def test_the_auc_of_a_track_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    liked, scores = rng.random((50, 130)) < 0.2, rng.integers(0, 9, (50, 130)).astype(np.float32)  # with many ties
    liked[:, 5], liked[:, 9] = False, True  # which tell nothing
    wanted = [roc_auc_score(liked[:, track], scores[:, track]) for track in range(130) if track not in (5, 9)]
    np.testing.assert_allclose(cold(liked).auc(scores), wanted, atol=1e-12)


def test_recall_counts_what_is_at_the_top_and_ndcg_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    liked, scores = rng.random((60, 40)) < 0.4, rng.random((60, 40)).astype(np.float32)
    measured = cold(liked).measure(scores)
    tops = [np.argsort(-of_row)[:10] for of_row in scores]
    recall = [liked[row, top].sum() / min(10, liked[row].sum()) for row, top in enumerate(tops)]
    assert measured.recall_at_10.value == pytest.approx(np.mean(recall))
    assert measured.ndcg_at_10.value == pytest.approx(ndcg_score(liked, scores, k=10))
    tops = [np.argsort(-column)[:10] for column in scores.T]
    recall = [liked[top, column].sum() / min(10, liked[:, column].sum()) for column, top in enumerate(tops)]
    assert measured.track_recall_at_10.value == pytest.approx(np.mean(recall))
    assert (measured.recall_at_10.n, measured.track_recall_at_10.n) == (60, 40)


def test_equal_scores_find_nothing():
    liked = np.zeros((30, 30), bool)
    liked[np.arange(30), np.arange(30)] = True
    measured = cold(liked).measure(np.zeros((30, 30), np.float32))
    assert (measured.auc.value, measured.recall_at_10.value, measured.ndcg_at_10.value) == (0.5, 0.0, 0.0)


def test_people_and_tracks_are_scored_by_their_cosine():
    people = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    scores = cold(np.ones((2, 1), bool), people=people).scores(np.array([[0.8, 0.6]], np.float32))
    np.testing.assert_allclose(scores, [[0.8], [0.96]], atol=1e-6)


def test_popularity_puts_who_likes_much_and_what_many_liked_first():
    liked = np.array([[True, False, True], [True, False, False]])
    scores = cold(liked, active=np.array([3, 7])).popularity()
    assert np.argsort(-scores[0]).tolist() == [0, 2, 1]
    assert scores[1, 0] > scores[0, 0]


def test_an_interval_is_about_as_wide_as_that_of_a_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    measured = figure(values)
    assert (measured.value, measured.n) == (pytest.approx(values.mean()), 400)
    assert measured.high - measured.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert figure(np.zeros(0)).n == 0
