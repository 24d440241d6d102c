import numpy as np
import pytest

from models.history import Signal
from offline.ranking import examples as of_examples
from offline.ranking.examples import HISTORIES, Examples, chunks, draw_users
from tests.offline.small_logs import log_of, split_of


def test_new_users_and_new_tracks_are_those_without_an_event_in_training():
    log = log_of([[0, 1, 2], [2, 3], [1, 0]], tracks=4)
    split = split_of(log, learned=[2, 1, 0], valid=0)
    examples = Examples.of(log, split, split.test)
    assert examples.targets.tolist() == [2, 3, 1, 0]
    assert examples.new_users.tolist() == [False, False, True, True]
    assert examples.new_tracks.tolist() == [False, True, False, False]


def test_a_target_at_the_moment_of_the_event_before_it_is_tied():
    log = log_of([[0, 1, 2, 3], [3, 2, 1]], tracks=4, times=[[5, 5, 6, 6], [6, 7, 7]])
    split = split_of(log, learned=[0, 0], valid=0)
    examples = Examples.of(log, split, split.test)
    assert examples.tied.tolist() == [False, True, False, True, False, False, True]
    assert examples.slices("replay")["untied"].tolist() == [True, False, True, False, True, True, False]


def test_a_history_ends_before_the_moment_of_its_target_or_as_it_stood_just_before_it():
    times = [[5, 5, 5, 6, 6], [7, 8, 8]]
    log = log_of([[0, 1, 0, 2, 3], [3, 2, 1]], tracks=4, times=times)
    split = split_of(log, learned=[1, 0], valid=0)
    strict, stood = (Examples.of(log, split, split.test, history=history) for history in HISTORIES)
    assert strict.positions.tolist() == stood.positions.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert strict.ends.tolist() == [0, 0, 3, 3, 5, 6, 6]
    assert stood.ends.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert strict.seen.tolist() == [False] * 7
    assert stood.seen.tolist() == [False, True, False, False, False, False, False]
    default = Examples.of(log, split, split.test)
    assert default.ends.tolist() == strict.ends.tolist()


def test_a_history_of_skips_alone_is_none():
    skip, play = Signal.SKIP, Signal.PLAY
    log = log_of([[0, 1, 2, 3], [2, 0]], tracks=4, signals=[[skip, play, play, play], [play, play]])
    split = split_of(log, learned=[0, 0], valid=0)
    examples = Examples.of(log, split, split.test)
    assert examples.positions.tolist() == [1, 2, 3, 4, 5]
    assert examples.no_history.tolist() == [True, False, False, True, False]
    assert examples.slices("replay")["no_history"].tolist() == examples.no_history.tolist()


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


def test_a_chunk_holds_so_many_rows_and_so_many_events_or_one_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(of_examples, "_CHUNK_EVENTS", 10)
    lengths = np.array([4, 6, 1, 0, 30, 0, 2, 2, 2, 2])
    assert [(part.start, part.stop) for part in chunks(lengths, rows=3)] == [
        (0, 2), (2, 4), (4, 5), (5, 8), (8, 10),
    ]  # fmt: skip
    assert not list(chunks(lengths[:0], rows=3))
