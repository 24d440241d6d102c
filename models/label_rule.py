"""Several labels a track, and labels within labels: how a head's decision values become labels that agree.

A head of this kind has one machine a label. A label may be within another, its parent: `Electronic---House` is within
`Electronic`. From the top down, no label is more probable than its parent:

    P(House) = min(what its own machine says, P(Electronic))

This is the top-down correction of Robinson, Frasca, Köhler et al., A Hierarchical Ensemble Method for DAG-Structured
Taxonomies (MCS 2015). A label does not depend on those within it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ReleaseError

Float64 = NDArray[np.float64]

WITHIN = "---"
"""Between the name of a label and what is within it: `Electronic---House`."""
_ADVICE = "train it again with `tastewave-offline train-genre`"


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelRule:
    """How decision values of labels become probabilities, and which labels are answered.

        rule = LabelRule(  # Electronic, Electronic---House
            parents=np.array([-1, 0]), slopes=np.ones(2), intercepts=np.zeros(2), thresholds=np.array([0.5, 0.4])
        )
        rule.probabilities(np.array([0.0, 9.0]))  # [0.5, 0.5]
        rule.answered(np.array([0.45, 0.44]))     # [True, True]: what is House is Electronic

    Attributes:
        parents: (labels,) the number of the label that each is within, -1 for none. Parents stand before children.
        slopes: (labels,) positive; the machine of a label gives it the probability
            1 / (1 + exp(-slope decision - intercept)) (Platt, Probabilistic Outputs for Support Vector Machines, 1999).
        intercepts: (labels,)
        thresholds: (labels,) a label is answered from this probability on; inf where only what is within it is.

    Raises:
        ReleaseError: the arrays do not fit together.
    """

    parents: NDArray[np.int64]
    slopes: Float64
    intercepts: Float64
    thresholds: Float64

    def __post_init__(self) -> None:
        labels = self.parents.shape
        numbers = (self.slopes, self.intercepts, self.thresholds)
        shaped = len(labels) == 1 and all(array.shape == labels and array.dtype == np.float64 for array in numbers)
        typed = shaped and self.parents.dtype == np.int64
        if not (
            typed
            and (self.parents >= -1).all()
            and (self.parents < np.arange(len(self.parents))).all()
            and np.isfinite(self.slopes).all()
            and (self.slopes > 0.0).all()
            and np.isfinite(self.intercepts).all()
            and (self.thresholds > 0.0).all()
        ):
            raise ReleaseError(
                "the labels of the genre head do not fit together: parents stand before their children, slopes and "
                f"thresholds are positive numbers, and all are {labels}; {_ADVICE}"
            )

    def probabilities(self, decisions: Float64) -> Float64:
        """Probabilities of decision values (..., labels), the same shape; none is above that of its parent."""
        probabilities = 0.5 + 0.5 * np.tanh(0.5 * (self.slopes * decisions + self.intercepts))
        for label, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                np.minimum(probabilities[..., label], probabilities[..., parent], out=probabilities[..., label])
        return probabilities

    def answered(self, probabilities: Float64) -> NDArray[np.bool_]:
        """(..., labels) which labels reach their threshold, and with each of them those that it is within."""
        answered = probabilities >= self.thresholds
        for label in reversed(range(len(self.parents))):
            if (parent := int(self.parents[label])) >= 0:
                answered[..., parent] |= answered[..., label]
        return answered

    def finest(self, answered: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(..., labels) those of the answered labels, the same shape, that have no answered label within them."""
        finest = answered.copy()
        for label, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                finest[..., parent] &= ~answered[..., label]
        return finest


def parent_of(label: str) -> str | None:
    """The label that a label is within: `Electronic` for `Electronic---House`; None for one that is within none."""
    return label.rpartition(WITHIN)[0] or None
