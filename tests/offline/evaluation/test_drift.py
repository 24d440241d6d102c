from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from offline.evaluation.drift import drift
from offline.evaluation.measures import Judged
from offline.interactions.splits import split_log
from offline.ranking.intervals import Bootstrap
from offline.ranking.rank import Ranked
from tests.offline.small_logs import log_of

DAY = 86_400_000


@dataclass(frozen=True)
class Tower:
    name: str = "mean"
    trained_until_ms: int | None = 15 * DAY


def test_figures_are_told_for_each_part_of_the_time_of_the_test():
    log = log_of([list(range(40))] * 12, tracks=40, times=[[day * DAY for day in range(40)]] * 12)
    split = split_log(log, "temporal", test_share=0.2)
    bootstrap = Bootstrap(log.user_of(split.test), replicates=100, seed=0)
    judged = Judged.of(log, split, split.test, bootstrap=bootstrap)
    age = (log.at[split.test] - split.test_from_ms) / DAY
    ranks = np.where(age < 3, 1, 99)
    ranked = {"mean": Ranked(ranks=ranks, top=np.full((len(ranks), 10), -1, np.int32))}
    found = drift(judged, [Tower()], ranked)
    assert found is not None
    assert found["trained_until_ms"] == {"mean": 15 * DAY}
    borders = [part["from_ms"] for part in found["parts"]] + [found["parts"][-1]["to_ms"]]
    assert borders[0] == split.test_from_ms
    assert borders[-1] == 39 * DAY + 1
    np.testing.assert_allclose(np.diff(borders), (borders[-1] - borders[0]) / 4, atol=1)
    recalls = found["figures"]["mean"]["recall_at_10"]
    assert sum(part["n"] for part in recalls) == len(split.test)
    by_hand = [ranks[(log.at[split.test] >= a) & (log.at[split.test] < b)] for a, b in pairwise(borders)]
    assert [part["value"] for part in recalls] == [(part == 1).mean() for part in by_hand]
    assert recalls[0]["value"] == 1.0
    assert recalls[-1]["value"] == 0.0
    assert drift(replace(judged, split=split_log(log, "leave-last")), [Tower()], ranked) is None
