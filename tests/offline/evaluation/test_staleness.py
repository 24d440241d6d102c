from dataclasses import dataclass

import numpy as np

from offline.evaluation.measures import Judged
from offline.evaluation.staleness import history_ends, stale
from offline.ranking.examples import Examples
from offline.ranking.intervals import Bootstrap
from offline.ranking.rank import rank
from tests.offline.small_logs import log_of, split_of

HOUR, DAY = 3_600_000, 86_400_000


def test_a_gap_takes_from_the_history_what_is_younger_than_it():
    times = [0, DAY, DAY + HOUR, 2 * DAY]
    log = log_of([[0, 1, 2, 3], [3, 2]], tracks=4, times=[times, [5, 5]])
    split = split_of(log, learned=[3, 1], valid=0)
    examples = Examples.of(log, split, split.test)
    assert history_ends(log, examples, gap_ms=0).tolist() == [3, 4]
    assert history_ends(log, examples, gap_ms=HOUR).tolist() == [3, 4]
    assert history_ends(log, examples, gap_ms=DAY - HOUR).tolist() == [3, 4]
    assert history_ends(log, examples, gap_ms=DAY).tolist() == [2, 4]
    assert history_ends(log, examples, gap_ms=7 * DAY).tolist() == [0, 4]


@dataclass(frozen=True)
class Next:
    """Recommends the track after the last one of the history, and it alone."""

    name: str = "next"

    def scores(self, log, users, ends):
        scores = np.full((len(users), len(log.tracks)), -np.inf, np.float32)
        known = ends > log.offsets[users]
        scores[known, (log.track[ends[known] - 1] + 1) % len(log.tracks)] = 1.0
        return scores


def test_staleness_tells_users_with_listens_in_the_gap_from_those_without():
    histories = [[0, 1, 2, 3], [4, 5, 6, 7]]
    busy, calm = [0, HOUR, 2 * DAY, 2 * DAY + 60_000], [0, HOUR, 2 * HOUR, 5 * DAY]
    log = log_of(histories, tracks=9, times=[busy, calm])
    split = split_of(log, learned=[3, 3], valid=0)
    bootstrap = Bootstrap(log.user_of(split.test), replicates=100, seed=0)
    judged = Judged.of(log, split, split.test, bootstrap=bootstrap)
    fresh = rank(Next(), log, judged.examples)["discovery"]
    found = stale(Next(), judged, fresh, advance=lambda _: None)
    told = {gap: {name: (part["value"], part["n"]) for name, part in parts.items()} for gap, parts in found.items()}
    assert told["0"] == {"all": (1.0, 2), "with_listens": (None, 0), "without_listens": (1.0, 2)}
    assert told[str(HOUR)] == {"all": (0.5, 2), "with_listens": (0.0, 1), "without_listens": (1.0, 1)}
    assert told[str(7 * DAY)] == {"all": (0.0, 2), "with_listens": (0.0, 2), "without_listens": (None, 0)}
