import threading
from contextlib import closing
from itertools import islice

import numpy as np
import pytest

from models.errors import SettingsError
from offline.interactions.log import read_log
from offline.interactions.splits import split_log
from offline.user_tower.windows import ahead, epoch_steps, windows


def test_every_position_trains_once_in_an_epoch_with_its_whole_history(log_path):
    log = read_log(log_path)
    split = split_log(log, "leave-last")
    row_of = np.arange(len(log.tracks))
    learned = {p for start, end in zip(log.offsets[:-1], split.train_end, strict=True) for p in range(start, end - 1)}
    for context, stride in ((2, 4), (9, 15), (49, 150), (5, 5)):
        steps = windows(log, split, row_of, context=context, stride=stride, positions=7 * stride, seed=5)
        expected = sorted(int(log.track[place + 1]) for place in learned)
        found: list[int] = []
        while len(found) < len(learned):
            batch = next(steps)
            found += batch.targets.tolist()
            for number, position in zip(*np.nonzero(batch.trains), strict=True):
                assert (batch.signals[number, : position + 1] > 0).all()
            first = batch.trains.argmax(axis=1)
            assert set(first) <= {0, *range(min(context, 1), context + 1)}
            assert (batch.trains.sum(axis=1) <= np.where(first == 0, context + stride, stride)).all()
        assert sorted(found) == expected


def steps_of(log_path, **given):
    log = read_log(log_path)
    row_of = np.arange(len(log.tracks))
    return windows(log, split_log(log, "leave-last"), row_of, context=9, stride=15, positions=100, seed=5, **given)


def test_processes_share_the_steps_of_an_epoch_and_none_has_more(log_path):
    log = read_log(log_path)
    steps = epoch_steps(log, split_log(log, "leave-last"), positions=100)
    assert steps % 2 == 1
    assert epoch_steps(log, split_log(log, "leave-last"), positions=100, processes=2) == steps // 2
    whole = [batch.targets.tolist() for batch in islice(steps_of(log_path), steps)]
    halves = [
        [batch.targets.tolist() for batch in islice(steps_of(log_path, rank=rank, processes=2), steps // 2)]
        for rank in range(2)
    ]
    assert halves == [whole[:-1:2], whole[1:-1:2]]
    again = steps_of(log_path, rank=1, processes=2, done=3)
    assert next(again).targets.tolist() == halves[1][3]


def test_more_processes_than_steps_are_one_sentence(log_path):
    with pytest.raises(SettingsError, match=r"an epoch of .* has \d+ steps, too few for 500 processes; start fewer"):
        next(steps_of(log_path, rank=3, processes=500))


def test_batches_that_are_prepared_ahead_are_the_same_and_their_thread_ends_with_them(log_path):
    with closing(ahead(steps_of(log_path))) as batches:
        for found, wanted in zip(islice(batches, 5), steps_of(log_path), strict=False):
            assert found.targets.tolist() == wanted.targets.tolist()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("windows")]

    def broken():
        yield from islice(steps_of(log_path), 1)
        raise OSError("the disk is gone")

    batches = ahead(broken())
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
