import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.errors import SettingsError
from models.history import IS_TARGET, Signal
from offline.interactions.splits import split_log
from tests.offline.small_logs import log_of

logs = st.lists(
    st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(list(Signal)[1:])), min_size=1, max_size=12),
    min_size=1,
    max_size=8,
)


def built(users):
    users = [sorted(listens, key=lambda listen: listen[0]) for listens in users]
    return log_of(
        [[place % 5 for place in range(len(listens))] for listens in users],
        tracks=5,
        times=[[at for at, _ in listens] for listens in users],
        signals=[[signal for _, signal in listens] for listens in users],
    )


@settings(max_examples=200)
@given(logs)
def test_the_temporal_split_never_learns_from_what_it_is_judged_by(users):
    log = built(users)
    try:
        split = split_log(log, "temporal", test_share=0.2)
    except SettingsError:
        return
    learned = np.concatenate([np.arange(a, b) for a, b in zip(log.offsets[:-1], split.train_end, strict=True)])
    span = log.at.max() + 1 - log.at.min()
    assert log.at[learned].max() < split.valid_from_ms <= log.at[split.valid].min()
    assert log.at[split.valid].max() < split.test_from_ms <= log.at[split.test].min()
    assert split.test_from_ms == pytest.approx(log.at.max() + 1 - 0.2 * span, abs=1)
    judged = np.concatenate([split.valid, split.test])
    assert set(judged) == {p for p in range(len(log.track)) if IS_TARGET[log.signal[p]] and p not in set(learned)}


@settings(max_examples=200)
@given(logs)
def test_leave_last_judges_the_last_target_validates_by_the_one_before_and_learns_from_before_its_moment(users):
    log = built(users)
    try:
        split = split_log(log, "leave-last")
    except SettingsError:
        return
    valid, test = iter(split.valid.tolist()), iter(split.test.tolist())
    for user in range(len(log.users)):
        events = range(log.offsets[user], log.offsets[user + 1])
        targets = [p for p in events if IS_TARGET[log.signal[p]]]
        if len(targets) < 3:
            assert split.train_end[user] == log.offsets[user + 1]
            continue
        held_back = [next(valid), next(test)]
        assert set(held_back) < set(targets)
        assert log.at[held_back].tolist() == log.at[targets[-2:]].tolist()
        learned = [p for p in events if log.at[p] < log.at[held_back[0]]]
        assert split.train_end[user] == log.offsets[user] + len(learned)
    assert not list(valid)
    assert not list(test)


def test_leave_last_of_moments_of_their_own_is_the_two_last_targets():
    play, skip = Signal.PLAY, Signal.SKIP
    signals = [[play, play, play, play, skip], [], [play, play, play], [play], []]
    log = log_of([[3, 1, 2, 0, 4], [], [0, 4, 2], [1], []], tracks=5, signals=signals)
    split = split_log(log, "leave-last")
    assert split.valid.tolist() == [2, 6]
    assert split.test.tolist() == [3, 7]
    assert split.train_end.tolist() == [2, 5, 6, 9, 9]


def test_leave_last_takes_any_target_of_the_last_moment_whatever_its_id():
    """Of 3,000 people who add four tracks at once, each track is judged for about a quarter, and so are pairs."""
    log = log_of([[0, 1, 2, 3, 4]] * 3000, tracks=5, times=[[0, 60_000, 60_000, 60_000, 60_000]] * 3000)
    split = split_log(log, "leave-last")
    pairs = np.zeros((5, 5), int)
    np.add.at(pairs, (log.track[split.valid], log.track[split.test]), 1)
    assert pairs.sum() == 3000
    assert not pairs[0].any()
    assert not pairs[:, 0].any()
    assert not np.diag(pairs).any()
    counted = pairs[1:, 1:][~np.eye(4, dtype=bool)]
    assert stats.chisquare(counted).pvalue > 0.001
    assert split.train_end.tolist() == (log.offsets[:-1] + 1).tolist()
    again = split_log(log, "leave-last")
    assert again.test.tolist() == split.test.tolist()


def test_users_with_one_listen_are_learned_from_and_not_judged():
    log = log_of([[0], [1, 2, 3]], tracks=4)
    split = split_log(log, "leave-last")
    assert split.train_end.tolist() == [1, 2]
    assert split.test.tolist() == [3]


@pytest.mark.parametrize(("name", "advice"), [("leave-last", "at least three targets"), ("temporal", "longer time")])
def test_an_empty_part_is_refused_in_one_sentence(name, advice):
    with pytest.raises(SettingsError, match=advice):
        split_log(log_of([[0], [1]], tracks=2, times=[[5], [5]]), name)
