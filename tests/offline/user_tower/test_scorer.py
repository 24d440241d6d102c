from dataclasses import replace

import numpy as np
import pytest
import torch

from models.history import Signal
from offline.ranking.embeddings import catalogue_scores, histories
from offline.ranking.rank import METRICS, rank
from offline.user_tower import scorer as of_scorer
from offline.user_tower.data import prepare
from offline.user_tower.networks import Items, Tower
from offline.user_tower.scorer import NetworkScorer
from offline.user_tower.settings import TowerTraining
from tests.offline.small_logs import log_of
from tests.offline.user_tower.rule_log import ALONE, QUICK


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


@pytest.mark.parametrize("protocol", ["discovery", "replay"])
def test_the_ndcg_of_a_validation_is_that_of_ranking_the_whole_catalogue(protocol, log_path, tmp_path, monkeypatch):
    settings = TowerTraining(log=log_path, out=str(tmp_path / "tower"), **QUICK | {"split": "temporal"})
    data = prepare(settings, scratch=tmp_path, team=ALONE)
    data.row_of[data.learned[-1]] = -1  # a target that no tower knows is missed
    data = replace(data, first_listens=data.first_listens[:-1])
    torch.manual_seed(0)
    tower = Tower("mean", dim=settings.dim, history=settings.history, dropout=0.1).eval()
    items = Items(data.start[:-1], unit_norm=True, sparse=False)
    scorer = NetworkScorer(data, tower, items)
    ranked = rank(scorer, data.log, data.examples, protocols=(protocol,))[protocol]
    counted = data.examples.slices(protocol)["all"]
    wanted = ranked.values()[counted, METRICS.index("ndcg_at_10")].mean()
    assert 0.0 < wanted < 1.0
    for scores in (2**26, 100):
        monkeypatch.setattr(of_scorer, "_CHUNK_SCORES", scores)
        assert scorer.ndcg(data.examples, protocol) == pytest.approx(wanted, abs=1e-6)
