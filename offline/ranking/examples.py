"""Examples: the listens of a split whose tracks a model has to foresee, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.history import IS_USABLE
from offline.interactions.log import InteractionLog, spans
from offline.interactions.splits import Split, in_training

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

PROTOCOLS = ("discovery", "replay")
"""discovery: tracks that the user had any event with before are no candidates, and examples whose target is such a
track are left out. replay: nothing is removed, nothing left out."""

History = Literal["before_moment", "as_it_stood"]
HISTORIES: tuple[History, ...] = get_args(History)
"""before_moment: the history of an example is everything strictly before the moment of its target. Many listens may
share a moment, in albums that are added at once and in logs of whole seconds, and only their ids put them in order.
as_it_stood: the history ends just before the target in that order, and a model can learn from it how ids follow."""

MAX_EXAMPLES = 50_000
"""Of a test that is judged; where it has more, users are drawn."""

MAX_ROWS = 1024
"""The most examples that are worked on at a time."""

_CHUNK_EVENTS = 2**21  # of these histories, some of which may have many thousand


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Targets to rank, and what is known of them.

    Attributes:
        positions: (n,) of the targets in the log.
        ends: (n,) where their histories end: what a model sees, and what discovery removes, is before it.
        users: (n,) places in log.users.
        targets: (n,) places in log.tracks.
        seen: (n,) the history has an event with the track.
        no_history: (n,) the history has no usable listen.
        tied: (n,) the target stands at the same moment as the event before it: their ids decide which comes first.
        new_users: (n,) the user has no event in the training part.
        new_tracks: (n,) the track has no event in the training part.

    Example:
        test = Examples.of(log, split, split.test)
        flattered = Examples.of(log, split, split.test, history="as_it_stood")
    """

    positions: Int64
    ends: Int64
    users: NDArray[np.integer]
    targets: NDArray[np.integer]
    seen: Bool
    no_history: Bool
    tied: Bool
    new_users: Bool
    new_tracks: Bool

    @classmethod
    def of(cls, log: InteractionLog, split: Split, positions: Int64, *, history: History = "before_moment") -> Examples:
        """The examples whose targets stand at (n,) positions of a log, with histories of a kind."""
        users = log.user_of(positions)
        targets = np.asarray(log.track[positions])
        ends = ends_before(log, positions, log.at[positions]) if history == "before_moment" else positions
        starts, seen, usable = log.offsets[users], np.zeros(len(positions), bool), np.zeros(len(positions), bool)
        for chunk in chunks(ends - starts):
            rows, events = spans(starts[chunk], ends[chunk])
            seen[chunk.start + rows[log.track[events] == targets[chunk][rows]]] = True
            usable[chunk.start + rows[IS_USABLE[log.signal[events]]]] = True
        trained = np.bincount(log.track[in_training(log, split)], minlength=len(log.tracks)) > 0
        return cls(
            positions=positions,
            ends=ends,
            users=users,
            targets=targets,
            seen=seen,
            no_history=~usable,
            tied=(positions > starts) & (log.at[np.maximum(positions - 1, 0)] == log.at[positions]),
            new_users=split.train_end[users] == starts,
            new_tracks=~trained[targets],
        )

    def slices(self, protocol: str) -> dict[str, Bool]:
        """(n,) by name, which examples of a protocol are in a slice: `all` of them, and parts of interest."""
        counted = ~self.seen if protocol == "discovery" else np.ones(len(self.seen), bool)
        slices = {
            "all": counted,
            "new_users": counted & self.new_users,
            "new_tracks": counted & self.new_tracks,
            "no_history": counted & self.no_history,
            "untied": counted & ~self.tied,
        }
        return slices if protocol == "discovery" else slices | {"repeats": self.seen}


def ends_before(log: InteractionLog, positions: Int64, moments: Int64) -> Int64:
    """(n,) where the histories of the users of (n,) positions end that hold what is before (n,) moments, in ms."""
    starts = log.offsets[log.user_of(positions)]
    histories = zip(starts, positions, moments, strict=True)
    return starts + np.array([np.searchsorted(log.at[a:b], moment) for a, b, moment in histories], np.int64)


def draw_users(log: InteractionLog, positions: Int64, *, most: int = MAX_EXAMPLES, seed: int) -> Int64:
    """All positions of a test, or those of users drawn at random: of at least one, of as many as `most` allows."""
    if len(positions) <= most:
        return positions
    users, counts = np.unique(log.user_of(positions), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(users))
    kept = max(1, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))
    return positions[np.isin(log.user_of(positions), users[order[:kept]])]


def chunks(lengths: Int64, *, rows: int = MAX_ROWS) -> Iterator[slice]:
    """Slices of examples that are worked on at a time, so that memory stays bounded.

    Args:
        lengths: (n,) of their histories. A slice has at most 2 million events, or a single example.
        rows: most examples of a slice; never more than 1024.
    """
    ends, start = np.cumsum(lengths), 0
    while start < len(lengths):
        before = ends[start - 1] if start else 0
        fits = int(np.searchsorted(ends, before + _CHUNK_EVENTS, side="right")) - start
        stop = start + max(1, min(rows, MAX_ROWS, fits, len(lengths) - start))
        yield slice(start, stop)
        start = stop
