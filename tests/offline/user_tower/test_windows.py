import numpy as np

from offline.interactions.log import read_log
from offline.interactions.splits import split_log
from offline.user_tower.windows import windows


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
