import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from models.history import Signal
from models.user_tower import load_user_tower
from offline.evaluation.scorers import TowerScorer
from offline.interactions.log import read_log
from offline.interactions.splits import split_log
from offline.ranking.embeddings import histories
from offline.ranking.examples import Examples
from offline.ranking.rank import rank
from offline.user_tower.networks import Items
from offline.user_tower.no_history import first_listens, fit_no_history
from offline.user_tower.settings import TowerTraining
from offline.user_tower.train import run
from tests.offline.small_logs import log_of, split_of
from tests.offline.user_tower.rule_log import QUICK, START


def test_first_listens_are_the_targets_at_or_before_the_moment_of_the_first_usable_listen():
    skip, play, partial = Signal.SKIP, Signal.PLAY, Signal.PARTIAL
    log = log_of([[4, 0, 1, 2], [1, 2, 3], [3, 3], [2, 1]], tracks=5,
                 signals=[[skip, play, play, play], [partial, play, play], [skip, skip], [play, play]],
                 times=[[1, 2, 2, 3], [1, 1, 2], [1, 2], [7, 8]])  # fmt: skip
    shares = first_listens(log, split_of(log, learned=[4, 3, 2, 0]), np.arange(5), items=5)
    assert shares.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])


def test_the_fitted_vector_is_the_best_place_in_the_space():
    torch.manual_seed(0)
    items = Items(torch.randn(50, 8), sparse=False)
    shares = torch.zeros(50).index_fill_(0, torch.tensor([3, 11]), 0.5)

    def cross_entropy(place):
        return functional.cross_entropy((items.scale * items() @ place)[None], shares[None]).item()

    with torch.no_grad():
        found = fit_no_history(items, shares)
        assert torch.linalg.vector_norm(found).item() == pytest.approx(1.0, abs=1e-6)
        others = functional.normalize(found + 0.3 * torch.randn(200, 8), dim=1)
        assert all(cross_entropy(found) <= cross_entropy(other) for other in others)


def first_listens_log(path, *, users=300, seed=0):
    """Everybody's first listen is one of three tracks that nobody hears again; the others are drawn from forty."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user:03}", f"first{rng.integers(3)}" if place == 0 else f"t{rng.integers(40)}", START + 60_000 * place)
        for user in range(users)
        for place in range(int(rng.integers(3, 12)))
    ]
    for share in (0.85, 1.0):  # of a day: what validates, and what is judged
        rows += [(f"v{share}{user}", f"first{user % 3}", START + int(86_400_000 * share) - user) for user in range(40)]
    pl.DataFrame(rows, orient="row", schema=["user_id", "track_id", "at"]).write_parquet(path)
    return str(path)


def test_who_has_no_history_is_recommended_what_people_listen_to_first(tmp_path):
    log_path = first_listens_log(tmp_path / "log.parquet")
    settings = TowerTraining(log=log_path, out=str(tmp_path / "tower"), **QUICK | {"split": "temporal"})
    run(settings)
    log = read_log(log_path)
    split = split_log(log, "temporal")
    examples = Examples.of(log, split, split.test)
    assert examples.no_history.sum() == 40
    ranked = rank(TowerScorer(tmp_path / "tower"), log, examples)["discovery"]
    assert ranked.ranks[examples.no_history].max() <= 3
    tower = load_user_tower(tmp_path / "tower")
    users = np.flatnonzero(np.diff(log.offsets) > 1)
    listens = histories(log, tower.items.rows(log.tracks), users, log.offsets[users + 1], history=10)
    middle = tower.embed(*listens).mean(axis=0)  # of everybody who has a history
    firsts = tower.items.rows([f"first{number}" for number in range(3)])
    best = np.argsort(-(tower.items.vectors @ middle))[:3]
    assert np.isin(firsts, best).sum() < 3
