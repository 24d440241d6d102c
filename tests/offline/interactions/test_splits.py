import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=200, deadline=None)
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


@settings(max_examples=200, deadline=None)
@given(logs)
def test_leave_last_judges_the_last_target_and_validates_by_the_one_before(users):
    log = built(users)
    try:
        split = split_log(log, "leave-last")
    except SettingsError:
        return
    valid, test = iter(split.valid), iter(split.test)
    for user in range(len(log.users)):
        targets = [p for p in range(log.offsets[user], log.offsets[user + 1]) if IS_TARGET[log.signal[p]]]
        if len(targets) < 3:
            assert split.train_end[user] == log.offsets[user + 1]
        else:
            assert [next(valid), next(test)] == targets[-2:]
            assert split.train_end[user] == targets[-2]
    assert not list(valid)
    assert not list(test)


def test_users_with_one_listen_are_learned_from_and_not_judged():
    log = log_of([[0], [1, 2, 3]], tracks=4)
    split = split_log(log, "leave-last")
    assert split.train_end.tolist() == [1, 2]
    assert split.test.tolist() == [3]


@pytest.mark.parametrize(("name", "advice"), [("leave-last", "at least three targets"), ("temporal", "longer time")])
def test_an_empty_part_is_refused_in_one_sentence(name, advice):
    with pytest.raises(SettingsError, match=advice):
        split_log(log_of([[0], [1]], tracks=2, times=[[5], [5]]), name)
