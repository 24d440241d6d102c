import numpy as np
import pytest
from hypothesis import given, settings

from models.history import Signal
from offline.ranking import examples as of_examples
from offline.ranking.examples import Examples
from offline.ranking.rank import MISSED, rank
from tests.offline.small_logs import log_of, split_of
from tests.offline.small_scores import INF, NAN, Table, cases, one, ranked_by_a_loop


@settings(max_examples=60)
@given(cases())
def test_ranks_and_lists_are_those_of_a_loop_over_tracks(case):
    log, split, table = case
    examples = Examples.of(log, split, split.test)
    found = rank(Table(table), log, examples)
    for protocol in ("discovery", "replay"):
        ranks, tops, counted = ranked_by_a_loop(case, protocol)
        assert found[protocol].ranks.tolist() == ranks
        assert found[protocol].top.tolist() == tops
        assert examples.slices(protocol)["all"].tolist() == counted


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


def test_rows_in_chunks_are_ranked_like_rows_at_once(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    log = log_of(rng.integers(0, 30, (7, 9)).tolist(), tracks=30)
    split = split_of(log, learned=[2] * 7, valid=0)
    scorer, told = Table(rng.integers(0, 8, (64, 30))), []
    at_once = rank(scorer, log, Examples.of(log, split, split.test))
    monkeypatch.setattr(of_examples, "MAX_ROWS", 4)
    examples = Examples.of(log, split, split.test)
    in_chunks = rank(scorer, log, examples, advance=told.append)
    assert max(told) == 4 * 2  # protocols
    assert sum(told) == len(split.test) * 2
    monkeypatch.setattr(of_examples, "_CHUNK_EVENTS", 9)
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


def test_what_came_at_the_moment_of_the_target_is_neither_seen_nor_removed():
    log = log_of([[0, 1, 2]], tracks=3, times=[[1, 9, 9]])
    split = split_of(log, learned=[2], valid=0)
    table = np.array([[0.0, 0.0, 0.0], [7.0, 9.0, 8.0], [8.0, 9.0, 7.0], [0.0, 0.0, 0.0]])
    found = rank(Table(table), log, Examples.of(log, split, split.test))
    assert found["replay"].top[0, :3].tolist() == [1, 2, 0]  # by the scores of the history that ends at 1
    assert found["discovery"].top[0, :3].tolist() == [1, 2, -1]
    stood = rank(Table(table), log, Examples.of(log, split, split.test, history="as_it_stood"))
    assert stood["replay"].top[0, :3].tolist() == [1, 0, 2]
    assert stood["discovery"].top[0, :2].tolist() == [2, -1]
