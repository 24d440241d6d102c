"""What a user tower has to beat: popularity, personal frequency, item kNN, transitions and EASE.

Each is fitted on the usable listens of the training part. Its settings are chosen on the validation examples, for
each protocol by itself: on as many of them as a tower's are. All score by the rolling history, as a tower does.
Tracks without a usable listen in the training part cannot be recommended. Popularity decides between equal scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.history import IS_TARGET, IS_USABLE
from offline.evaluation.together import (
    REACH,
    Float32,
    Int64,
    ease_weights,
    listeners,
    neighbours,
    transitions,
    weighted_histories,
)
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split, in_training
from offline.ranking.examples import PROTOCOLS, Examples
from offline.ranking.rank import LIST_LENGTH, METRICS, rank

EASE_TRACKS = 6000
"""The most tracks that EASE is fitted for: it inverts a matrix of tracks x tracks."""

Settings = Mapping[str, float]
Choices = Mapping[str, tuple[float, ...]]
"""Values by name of a setting; the first is where the search begins."""

_KEPT = 1000  # of the most similar tracks or followers of a track
_TIE_BREAK = np.float32(1e-6)


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What floors are fitted on.

    Attributes:
        log, split: only the training part is learned from.
        shares: (tracks,) of the targets in the training part; -inf for tracks without a usable listen there.
    """

    log: InteractionLog
    split: Split
    shares: Float32

    @classmethod
    def of(cls, log: InteractionLog, split: Split) -> Training:
        """That of a split of a log."""
        learned, tracks = in_training(log, split), len(log.tracks)
        counts = np.bincount(log.track[learned & IS_TARGET[log.signal]], minlength=tracks)
        known = np.bincount(log.track[learned & IS_USABLE[log.signal]], minlength=tracks) > 0
        shares = np.where(known, counts / max(1, counts.sum()), -np.inf).astype(np.float32)
        return cls(log=log, split=split, shares=shares)


class Floor(ABC):
    """A simple method to beat, with its settings; an offline.ranking.rank.Scorer.

    Example:
        floor = EaseFloor.fit(Training.of(log, split), {"ridge": 300.0, "decay": 0.9, "own_weight": 0.0})

    Attributes:
        name: short, for tables.
        fitting: settings of what is learned, each with the values to choose from.
        scoring: likewise, of how a history is scored.
        replaying: likewise, of what the user's own tracks count: in discovery, where these are no candidates, they
            stay at their first values.
        learned: what `learn` made.
        shares: those of Training.
        settings: all of these.
    """

    name: str
    fitting: ClassVar[Choices] = {}
    scoring: ClassVar[Choices] = {}
    replaying: ClassVar[Choices] = {}

    def __init__(self, *, learned: Any, shares: Float32, settings: Settings) -> None:
        self.learned, self.shares, self.settings = learned, shares, settings

    @classmethod
    def fits(cls, log: InteractionLog) -> bool:  # noqa: ARG003
        """Whether the floor can be fitted on a log of this size."""
        return True

    @classmethod
    def learn(cls, training: Training, **fitting: float) -> Any:  # noqa: ARG003
        """What scores are made of."""
        return None

    @classmethod
    def fit(cls, training: Training, settings: Settings, *, learn: Callable[..., Any] | None = None) -> Self:
        """The floor with these settings; `learn` may remember what it made before."""
        made = (learn or cls.learn)(training, **{name: settings[name] for name in cls.fitting})
        return cls(learned=made, shares=training.shares, settings=settings)

    @abstractmethod
    def weigh(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """(n, tracks) scores before popularity decides between equal ones; arguments as for Scorer.scores."""

    def scores(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """See Scorer."""
        tie_break = _TIE_BREAK * self.shares / max(np.float32(1e-9), self.shares.max())
        return (self.weigh(log, users, ends) + tie_break).astype(np.float32, copy=False)


class PopularityFloor(Floor):
    """What is heard most, the same for everybody."""

    name = "popularity"

    def weigh(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:  # noqa: ARG002
        """See Floor."""
        return np.zeros((len(users), len(log.tracks)), np.float32)


class FrequencyFloor(Floor):
    """How often the user heard each track: a listen with n usable ones after it counts (1 + n) ** -power.

    Abbattista et al., Enhancing Sequential Music Recommendation with Personalized Popularity Awareness, RecSys 2024,
    where it beats transformers without any decay (power 0).
    """

    name = "personal_frequency"
    replaying: ClassVar[Choices] = {"power": (0.5, 0.0, 0.25, 0.75, 1.0, 1.5)}

    def weigh(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """See Floor."""
        power = self.settings["power"]
        return _highest_1(weighted_histories(log, users, ends, weight=lambda age: (1.0 + age) ** -power).toarray())


class _Linear(Floor):
    """Scores that are sums over the listens of a history: what each says for every track, decaying with its age.

    To these is added own_weight times the weights of the history's own tracks, both with 1 as the highest of a row.
    """

    newest: ClassVar[int | None] = REACH
    replaying: ClassVar[Choices] = {"own_weight": (0.0, 0.3, 1.0, 3.0)}

    def weigh(self, log: InteractionLog, users: NDArray[np.integer], ends: Int64) -> Float32:
        """See Floor."""
        decay, most = self.settings["decay"], self.newest or np.inf
        held = weighted_histories(log, users, ends, weight=lambda age: decay ** age.astype(float) * (age < most))
        said, own = held @ self.learned, _highest_1(held.toarray())
        own *= self.settings["own_weight"]
        return _highest_1(said if isinstance(said, np.ndarray) else said.toarray()) + own


class ItemKnnFloor(_Linear):
    """What is heard by the people who hear the ten newest tracks: cosines of who listened."""

    name = "item_knn"
    fitting: ClassVar[Choices] = {"neighbours": (_KEPT, 50)}
    scoring: ClassVar[Choices] = {"decay": (0.8, 0.5, 0.95)}

    @classmethod
    def learn(cls, training: Training, **fitting: float) -> Any:
        """(tracks, tracks) as offline.evaluation.together.neighbours."""
        return neighbours(listeners(training.log, training.split), keep=int(fitting["neighbours"]))


class TransitionsFloor(_Linear):
    """What follows the ten newest tracks in other histories, soon after them above all."""

    name = "transitions"
    fitting: ClassVar[Choices] = {"power": (0.5, 0.25), "pair_decay": (0.8, 0.5, 0.95)}
    scoring: ClassVar[Choices] = {"decay": (0.8, 0.5, 0.95)}

    @classmethod
    def learn(cls, training: Training, **fitting: float) -> Any:
        """(tracks, tracks) as offline.evaluation.together.transitions."""
        return transitions(
            training.log, training.split, decay=fitting["pair_decay"], power=fitting["power"], keep=_KEPT
        )


class EaseFloor(_Linear):
    """A linear model from the tracks of a history to all, with the history decaying; for EASE_TRACKS or fewer."""

    name = "ease"
    newest = None
    fitting: ClassVar[Choices] = {"ridge": (300.0, 100.0, 1000.0, 3000.0)}
    scoring: ClassVar[Choices] = {"decay": (0.9, 0.8, 0.95, 0.98, 1.0)}

    @classmethod
    def fits(cls, log: InteractionLog) -> bool:
        """See Floor."""
        return len(log.tracks) <= EASE_TRACKS

    @classmethod
    def learn(cls, training: Training, **fitting: float) -> Any:
        """(tracks, tracks) as offline.evaluation.together.ease_weights."""
        return ease_weights(listeners(training.log, training.split), ridge=fitting["ridge"])


FLOORS: tuple[type[Floor], ...] = (PopularityFloor, FrequencyFloor, ItemKnnFloor, TransitionsFloor, EaseFloor)


def fit_floor(kind: type[Floor], training: Training, examples: Examples) -> dict[str, Floor]:
    """A floor with the settings that are best in each protocol.

    The settings are chosen one after the other, those of `replaying` first, for these matter the most in replay. Each
    takes the value with the highest NDCG@10 on the examples, those before it as chosen and those after it at their
    first value.

    Args:
        kind: one of FLOORS that fits the log.
        training: what it learns from.
        examples: of the validation part.
    """
    learn, best = cache(kind.learn), {}
    for protocol in PROTOCOLS:
        choices = {**kind.replaying, **kind.fitting, **kind.scoring}
        searched = choices if protocol == "replay" else {**kind.fitting, **kind.scoring}
        floor = kind.fit(training, {name: values[0] for name, values in choices.items()}, learn=learn)
        score = _ndcg(floor, training.log, examples, protocol) if searched else 0.0
        for name, values in searched.items():
            others = [kind.fit(training, {**floor.settings, name: value}, learn=learn) for value in values[1:]]
            for other in others:
                if (reached := _ndcg(other, training.log, examples, protocol)) > score:
                    floor, score = other, reached
        best[protocol] = floor
    return best


def _highest_1(scores: Float32) -> Float32:
    """Rows divided by their highest value, where it is above 0."""
    highest = scores.max(axis=1, keepdims=True)
    return (scores / np.where(highest > 0, highest, 1.0)).astype(np.float32, copy=False)


def _ndcg(scorer: Floor, log: InteractionLog, examples: Examples, protocol: str) -> float:
    counted = examples.slices(protocol)["all"]
    ranked = rank(scorer, log, examples, protocols=(protocol,))[protocol]
    values = ranked.values()[counted, METRICS.index(f"ndcg_at_{LIST_LENGTH}")]
    return float(values.mean()) if len(values) else 0.0
