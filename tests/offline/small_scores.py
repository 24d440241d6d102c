"""Scores written by hand, and logs that they rank."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from models.history import Signal
from offline.ranking.examples import Examples
from offline.ranking.rank import MISSED, rank
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


def ranked_by_a_loop(case, protocol):
    """Of each test example of a case: the target's rank, the ten best tracks, and whether it counts."""
    log, split, table = case
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
    return ranks, tops, counted


def one(history, scores, *, signals=None, tracks=None):
    log = log_of([history], tracks=tracks or len(scores), signals=[signals] if signals else None)
    split = split_of(log, learned=[len(history) - 1], valid=0)
    examples = Examples.of(log, split, split.test)
    return rank(Table(np.tile(scores, (len(history) + 1, 1))), log, examples), examples
