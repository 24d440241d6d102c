from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.history import Signal
from offline.evaluation import ranking
from offline.evaluation.ranking import (
    MISSED,
    Bootstrap,
    Examples,
    Ranked,
    against_best,
    draw_users,
    interval,
    leaf,
    measure,
    rank,
    spans,
)
from tests.offline.small_logs import log_of, split_of

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Table:
    """Scores by the position where the history ends: (events + 1, tracks)."""

    table: np.ndarray
    name: str = "table"

    def scores(self, log, users, ends):
        return self.table[ends].astype(np.float32)


@st.composite
def cases(draw):
    tracks = draw(st.integers(1, 14))
    histories = draw(st.lists(st.lists(st.integers(0, tracks - 1), min_size=1, max_size=9), min_size=1, max_size=5))
    codes = st.sampled_from([Signal.PLAY, Signal.SKIP, Signal.PARTIAL, Signal.DISLIKE, Signal.LIKE])
    signals = [[draw(codes) for _ in history] for history in histories]
    log = log_of(histories, tracks=tracks, signals=signals)
    learned = [draw(st.integers(0, len(history))) for history in histories]
    levels = st.sampled_from([NAN, -INF, -1.0, 0.0, 0.25, 0.5, 1.0])
    table = np.array([[draw(levels) for _ in range(tracks)] for _ in range(len(log.track) + 1)])
    return log, split_of(log, learned=learned, valid=0), table


@settings(max_examples=60, deadline=None)
@given(cases())
def test_ranks_lists_and_metrics_are_those_of_a_loop_over_tracks(case):
    log, split, table = case
    examples = Examples.of(log, split, split.test)
    found = rank(Table(table), log, examples)
    for protocol in ("discovery", "replay"):
        ranks, tops, counted = [], [], []
        for position in split.test:
            user = next(u for u in range(len(log.users)) if position < log.offsets[u + 1])
            seen = set(log.track[log.offsets[user] : position].tolist())
            target = int(log.track[position])
            candidates = [t for t in range(len(log.tracks)) if protocol == "replay" or t not in seen]
            usable = {t: table[position, t] for t in candidates if table[position, t] > -INF}
            ranks.append(1 + sum(usable[t] >= usable[target] for t in usable if t != target)
                         if target in usable else MISSED)  # fmt: skip
            best = sorted(usable, key=lambda t: (-usable[t], t))[:10]
            tops.append(best + [-1] * (10 - len(best)))
            counted.append(protocol == "replay" or target not in seen)
        assert found[protocol].ranks.tolist() == ranks
        assert found[protocol].top.tolist() == tops
        assert examples.slices(protocol)["all"].tolist() == counted
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


def one(history, scores, *, signals=None, tracks=None):
    log = log_of([history], tracks=tracks or len(scores), signals=[signals] if signals else None)
    split = split_of(log, learned=[len(history) - 1], valid=0)
    examples = Examples.of(log, split, split.test)
    return rank(Table(np.tile(scores, (len(history) + 1, 1))), log, examples), examples


def test_a_target_comes_last_among_its_equals():
    found, _ = one([0, 3], [9.0, 5.0, 5.0, 5.0, 5.0, 1.0])
    assert found["replay"].ranks.tolist() == [5]
    assert found["discovery"].ranks.tolist() == [4]
    assert found["discovery"].top.tolist() == [[1, 2, 3, 4, 5, -1, -1, -1, -1, -1]]


def test_scoring_every_track_alike_gains_nothing():
    found, _ = one([0, 3], [1.0] * 500)
    assert found["discovery"].ranks.tolist() == [499]
    assert found["replay"].ranks.tolist() == [500]


@pytest.mark.parametrize("score", [NAN, -INF])
def test_a_target_that_cannot_be_recommended_is_missed(score: float):
    found, _ = one([0, 3], [1.0, 1.0, 1.0, score])
    assert found["replay"].ranks.tolist() == [MISSED]
    assert found["replay"].values().tolist() == [[0.0] * 4]


@pytest.mark.parametrize("signal", [Signal.PLAY, Signal.SKIP, Signal.PARTIAL, Signal.BRIEF, Signal.DISLIKE])
def test_discovery_removes_tracks_with_an_event_of_any_kind_and_replay_none(signal: Signal):
    found, _ = one([2, 1, 0], [1.0, 3.0, 2.0], signals=[signal, signal, Signal.PLAY])
    assert found["discovery"].top[0, :2].tolist() == [0, -1]
    assert found["replay"].top[0, :4].tolist() == [1, 2, 0, -1]


def test_a_repeated_target_is_left_out_of_discovery_and_a_repeat_in_replay():
    found, examples = one([2, 2], [1.0, 2.0, 3.0])
    assert examples.seen.tolist() == [True]
    assert not examples.slices("discovery")["all"].any()
    assert examples.slices("replay")["repeats"].all()
    bootstrap = Bootstrap(examples.users, replicates=10, seed=0)
    discovery = measure(found["discovery"], examples, "discovery", bootstrap=bootstrap, catalogue=3)
    assert discovery.leaves["all"]["recall_at_10"] == {"value": None, "n": 0, "low": None, "high": None}
    assert discovery.leaves["all"]["coverage_at_10"]["value"] is None


def test_new_users_and_new_tracks_are_those_without_an_event_in_training():
    log = log_of([[0, 1, 2], [2, 3], [1, 0]], tracks=4)
    split = split_of(log, learned=[2, 1, 0], valid=0)
    examples = Examples.of(log, split, split.test)
    assert examples.targets.tolist() == [2, 3, 1, 0]
    assert examples.new_users.tolist() == [False, False, True, True]
    assert examples.new_tracks.tolist() == [False, True, False, False]


def test_rows_in_chunks_are_ranked_like_rows_at_once(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    log = log_of(rng.integers(0, 30, (7, 9)).tolist(), tracks=30)
    split = split_of(log, learned=[2] * 7, valid=0)
    scorer, told = Table(rng.integers(0, 8, (64, 30))), []
    at_once = rank(scorer, log, Examples.of(log, split, split.test))
    monkeypatch.setattr(ranking, "_CHUNK_ROWS", 4)
    examples = Examples.of(log, split, split.test)
    in_chunks = rank(scorer, log, examples, advance=told.append)
    assert max(told) == 4 * 2  # protocols
    assert sum(told) == len(split.test) * 2
    monkeypatch.setattr(ranking, "_CHUNK_EVENTS", 9)
    by_events = rank(scorer, log, Examples.of(log, split, split.test))
    for protocol, ranked in at_once.items():
        np.testing.assert_array_equal(ranked.ranks, by_events[protocol].ranks)
    for protocol, ranked in at_once.items():
        np.testing.assert_array_equal(ranked.ranks, in_chunks[protocol].ranks)
        np.testing.assert_array_equal(ranked.top, in_chunks[protocol].top)


@pytest.mark.parametrize("levels", [3, 100, 10**6])
@pytest.mark.parametrize("known", [5, 300, 700])
def test_the_best_of_a_large_catalogue_are_those_of_sorting_it(levels: int, known: int):
    rng = np.random.default_rng(levels + known)
    log = log_of(rng.integers(0, 700, (30, 2)).tolist(), tracks=700)
    split = split_of(log, learned=[1] * 30, valid=0)
    table = rng.integers(0, levels, (61, 700)).astype(float)
    for row in table:
        row[rng.permutation(700)[known:]] = -INF
    found = rank(Table(table), log, Examples.of(log, split, split.test))["replay"].top
    for position, top in zip(split.test, found, strict=True):
        best = sorted(np.flatnonzero(table[position] > -INF), key=lambda t, row=table[position]: (-row[t], t))[:10]
        assert top.tolist() == best + [-1] * (10 - len(best))


def test_a_shorter_history_for_the_scorer_still_removes_what_was_heard_since():
    log = log_of([[0, 1, 2]], tracks=3)
    split = split_of(log, learned=[2], valid=0)
    examples = Examples.of(log, split, split.test)
    table = np.array([[0.0, 0.0, 0.0], [9.0, 8.0, 7.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = rank(Table(table), log, examples, ends=np.array([1]))
    assert found["replay"].top[0, :3].tolist() == [0, 1, 2]
    assert found["discovery"].top[0, :2].tolist() == [2, -1]


def test_spans_are_laid_end_to_end():
    rows, positions = spans(np.array([3, 9, 5]), np.array([5, 9, 8]))
    assert rows.tolist() == [0, 0, 2, 2, 2]
    assert positions.tolist() == [3, 4, 5, 6, 7]


def users_of(rng, *, users: int, each: int, spread: float):
    """Examples whose users share a hit rate of their own, .3 on average."""
    rate = rng.beta(0.3 / spread, 0.7 / spread, users)
    return np.repeat(np.arange(users), each), (rng.random((users, each)) < rate[:, None]).ravel().astype(float)


def bounds(users, hits, *, seed: int = 0):
    bootstrap = Bootstrap(users, replicates=300, seed=seed)
    replicates = bootstrap.means(hits[:, None], {"all": np.ones(len(hits), bool)})["all"][:, 0]
    return interval(hits.mean(), replicates)


def test_intervals_hold_the_truth_about_95_times_in_100_though_users_differ():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        low, high = bounds(*users_of(rng, users=80, each=6, spread=0.5))
        held += low <= 0.3 <= high
    assert 178 <= held <= 198


def test_an_interval_that_knows_of_users_is_wider_than_one_that_does_not():
    users, hits = users_of(np.random.default_rng(1), users=100, each=20, spread=1.0)
    low, high = bounds(users, hits)
    narrow_low, narrow_high = bounds(np.arange(len(hits)), hits)
    assert high - low > 2 * (narrow_high - narrow_low)


def test_intervals_are_the_same_for_the_same_seed():
    users, hits = users_of(np.random.default_rng(2), users=30, each=4, spread=0.3)
    assert bounds(users, hits) == bounds(users, hits)
    assert bounds(users, hits) != bounds(users, hits, seed=1)


def test_replicates_are_means_over_the_examples_of_drawn_users_within_each_slice():
    users, values = np.array([7, 7, 9, 3]), np.array([[1.0], [0.0], [1.0], [0.0]])
    bootstrap = Bootstrap(users, replicates=50, seed=3)
    found = bootstrap.means(values, {"all": np.ones(4, bool), "first": np.array([True, False, False, False])})
    rng = np.random.default_rng(3)
    for of_all, of_first in zip(found["all"][:, 0], found["first"][:, 0], strict=True):
        drawn = [[3, 7, 9][place] for place in rng.integers(3, size=3)]
        rows = [row for user in drawn for row in np.flatnonzero(users == user)]
        assert of_all == pytest.approx(values[rows].mean())
        assert np.isnan(of_first) == (7 not in drawn)
        assert 7 not in drawn or of_first == 1.0


def test_coverage_is_the_share_of_tracks_in_any_list_and_its_interval_lies_around_it():
    top = np.full((40, 10), -1, np.int32)
    top[:, 0], top[:, 1] = np.arange(40), 99
    top[5] = -1
    bootstrap = Bootstrap(np.arange(40), replicates=200, seed=0)
    share, replicates = bootstrap.coverage(top, tracks=200)
    assert share == 40 / 200
    assert replicates.mean() < 0.75 * share
    found = leaf(share, n=200, replicates=replicates)
    assert found["low"] < share < found["high"]


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


def test_a_chunk_holds_so_many_rows_and_so_many_events_or_one_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranking, "_CHUNK_EVENTS", 10)
    lengths = np.array([4, 6, 1, 0, 30, 0, 2, 2, 2, 2])
    assert [(part.start, part.stop) for part in ranking._chunks(lengths, rows=3)] == [
        (0, 2), (2, 4), (4, 5), (5, 8), (8, 10),
    ]  # fmt: skip
    assert not list(ranking._chunks(lengths[:0], rows=3))


def test_a_test_that_is_too_large_keeps_all_examples_of_users_drawn_by_the_seed():
    log = log_of([[0, 1, 2, 3]] * 50, tracks=4)
    test = split_of(log, learned=[1] * 50, valid=0).test
    assert draw_users(log, test, most=150, seed=0) is test
    drawn = draw_users(log, test, most=32, seed=0)
    users, counts = np.unique(log.user_of(drawn), return_counts=True)
    assert counts.tolist() == [3] * 10
    assert drawn.tolist() == draw_users(log, test, most=32, seed=0).tolist()
    assert set(users) != set(log.user_of(draw_users(log, test, most=32, seed=1)))
    assert len(draw_users(log, test, most=1, seed=0)) == 3


def test_a_target_at_the_moment_of_the_event_before_it_is_tied():
    log = log_of([[0, 1, 2, 3], [3, 2, 1]], tracks=4, times=[[5, 5, 6, 6], [6, 7, 7]])
    split = split_of(log, learned=[0, 0], valid=0)
    examples = Examples.of(log, split, split.test)
    assert examples.tied.tolist() == [False, True, False, True, False, False, True]
    assert examples.slices("replay")["untied"].tolist() == [True, False, True, False, True, True, False]


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
