import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from offline.evaluation.measures import Judged, against_best, measure
from offline.ranking.examples import HISTORIES, PROTOCOLS, Examples
from offline.ranking.intervals import Bootstrap
from offline.ranking.rank import Ranked, rank
from tests.offline.small_logs import log_of, split_of
from tests.offline.small_scores import Table, cases, one, ranked_by_a_loop


@settings(max_examples=60)
@given(cases())
def test_metrics_are_those_of_a_loop_over_tracks(case):
    log, split, table = case
    examples = Examples.of(log, split, split.test)
    found = rank(Table(table), log, examples)
    for protocol in ("discovery", "replay"):
        ranks, tops, counted = ranked_by_a_loop(case, protocol)
        if not any(counted):
            continue
        bootstrap = Bootstrap(examples.users, replicates=20, seed=0)
        leaves = measure(found[protocol], examples, protocol, bootstrap=bootstrap, catalogue=len(log.tracks)).leaves
        kept = [r for r, is_counted in zip(ranks, counted, strict=True) if is_counted]
        listed = {t for top, is_counted in zip(tops, counted, strict=True) if is_counted for t in top} - {-1}
        expected = {f"recall_at_{k}": sum(r <= k for r in kept) / len(kept) for k in (10, 50, 100)} | {
            "ndcg_at_10": sum(1 / np.log2(1 + r) for r in kept if r <= 10) / len(kept),
            "coverage_at_10": len(listed) / len(log.tracks),
        }
        assert {name: leaf["value"] for name, leaf in leaves["all"].items()} == pytest.approx(expected)
        assert leaves["all"]["recall_at_10"]["n"] == len(kept)
        assert leaves["all"]["coverage_at_10"]["n"] == len(log.tracks)


def test_recall_and_ndcg_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    log = log_of(rng.integers(0, 150, (40, 12)).tolist(), tracks=150)
    split = split_of(log, learned=[6] * 40, valid=1)
    table = rng.permutation(len(log.track) * 150 + 150).reshape(-1, 150).astype(np.float32)  # no two are equal
    judged = Judged.of(log, split, split.test, bootstrap=Bootstrap(log.user_of(split.test), replicates=100, seed=0))
    measured = judged.measure(judged.rank(dict.fromkeys(PROTOCOLS, Table(table))))["before_moment"]
    scores, targets = table[split.test].copy(), log.track[split.test]
    counted = np.ones(len(targets), bool)
    for protocol in ("replay", "discovery"):
        if protocol == "discovery":
            for row, position in enumerate(split.test):
                heard = log.track[log.offsets[log.user_of(position)] : position]
                scores[row, heard], counted[row] = -1.0, targets[row] not in heard
        found = {name: leaf["value"] for name, leaf in measured[protocol].leaves["all"].items()}
        of_ones = np.eye(150)[targets[counted]]
        assert found["ndcg_at_10"] == pytest.approx(ndcg_score(of_ones, scores[counted], k=10), abs=1e-9)
        for k in (10, 50, 100):
            recall = top_k_accuracy_score(targets[counted], scores[counted], k=k, labels=range(150))
            assert found[f"recall_at_{k}"] == pytest.approx(recall, abs=1e-9)


def test_histories_as_they_stood_are_ranked_as_if_all_had_been():
    rng = np.random.default_rng(5)
    times = [np.sort(rng.integers(0, 6, 12)).tolist() for _ in range(40)]
    log = log_of(rng.integers(0, 30, (40, 12)).tolist(), tracks=30, times=times)
    split = split_of(log, learned=[6] * 40, valid=1)
    scorers = dict.fromkeys(PROTOCOLS, Table(rng.random((len(log.track) + 1, 30))))
    judged = Judged.of(log, split, split.test, bootstrap=Bootstrap(log.user_of(split.test), replicates=100, seed=0))
    found = judged.rank(scorers)
    measured = judged.measure(found)
    for history in HISTORIES:
        examples = Examples.of(log, split, split.test, history=history)
        for protocol, expected in rank(scorers["replay"], log, examples).items():
            np.testing.assert_array_equal(found[history][protocol].ranks, expected.ranks)
            np.testing.assert_array_equal(found[history][protocol].top, expected.top)
            count = measured[history][protocol].leaves["all"]["recall_at_10"]["n"]
            assert count == examples.slices(protocol)["all"].sum()


def test_where_no_two_listens_share_a_moment_histories_are_judged_once():
    log = log_of([[0, 1, 2, 3]] * 12, tracks=4)
    split = split_of(log, learned=[2] * 12)
    judged = Judged.of(log, split, split.test, bootstrap=Bootstrap(log.user_of(split.test), replicates=100, seed=0))
    assert list(judged.rank(dict.fromkeys(PROTOCOLS, Table(np.ones((49, 4)))))) == ["before_moment"]


def test_a_repeated_target_is_left_out_of_discovery_and_a_repeat_in_replay():
    found, examples = one([2, 2], [1.0, 2.0, 3.0])
    assert examples.seen.tolist() == [True]
    assert not examples.slices("discovery")["all"].any()
    assert examples.slices("replay")["repeats"].all()
    bootstrap = Bootstrap(examples.users, replicates=10, seed=0)
    discovery = measure(found["discovery"], examples, "discovery", bootstrap=bootstrap, catalogue=3)
    assert discovery.leaves["all"]["recall_at_10"] == {"value": None, "n": 0, "low": None, "high": None}
    assert discovery.leaves["all"]["coverage_at_10"]["value"] is None


def test_a_model_is_held_against_the_best_floor_of_each_metric_with_the_same_users():
    rng = np.random.default_rng(0)
    log = log_of(rng.integers(0, 300, (60, 4)).tolist(), tracks=300)
    split = split_of(log, learned=[3] * 60, valid=0)
    examples = Examples.of(log, split, split.test)
    bootstrap = Bootstrap(examples.users, replicates=200, seed=0)

    def measured(ranks):
        ranked = Ranked(ranks=np.asarray(ranks), top=np.full((60, 10), -1, np.int32))
        return measure(ranked, examples, "replay", bootstrap=bootstrap, catalogue=300)

    wide, sharp = measured([40] * 60), measured([1] * 10 + [200] * 50)
    found = against_best(measured([1] * 10 + [40] * 50), {"wide": wide, "sharp": sharp})
    assert found["recall_at_10"] == {"floor": "sharp", "difference": 0.0, "low": 0.0, "high": 0.0}
    assert found["recall_at_50"] == {"floor": "wide", "difference": 0.0, "low": 0.0, "high": 0.0}
    better = against_best(measured([1] * 30 + [200] * 30), {"wide": wide, "sharp": sharp})["ndcg_at_10"]
    assert better["floor"] == "sharp"
    assert better["difference"] == pytest.approx(20 / 60)
    assert 0.2 < better["low"] < 20 / 60 < better["high"] < 0.47


def test_of_a_handful_of_users_nobody_wins():
    log = log_of([[0, 1, 2]] * 9, tracks=9)
    split = split_of(log, learned=[1] * 9, valid=0)
    examples = Examples.of(log, split, split.test)

    def measured(rank_of_all: int):
        ranked = Ranked(ranks=np.full(18, rank_of_all), top=np.zeros((18, 10), np.int32))
        bootstrap = Bootstrap(examples.users, replicates=100, seed=0)
        return measure(ranked, examples, "discovery", bootstrap=bootstrap, catalogue=9)

    found = against_best(measured(1), {"floor": measured(50)})["recall_at_10"]
    assert found == {"floor": "floor", "difference": 1.0, "low": -1.0, "high": 1.0}
