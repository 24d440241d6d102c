"""Calibrating a head of several labels: a sigmoid and a threshold for each label, from tracks of unheard artists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from models.errors import SettingsError
from models.genre import GenreHead
from models.label_rule import LabelRule
from offline.genre.calibration import OutOfFold
from offline.genre.machine import Float64
from offline.genre.settings import HeadTraining

LEAST_ANSWERED = 5
"""So many tracks have to be answered at a threshold before their share of right answers says something."""


def calibrate_labels(
    settings: HeadTraining, head: GenreHead, rule: LabelRule, unheard: OutOfFold, *, labels: NDArray[np.bool_]
) -> GenreHead:
    """The head with the sigmoids and the thresholds that suit what was said about tracks of unheard artists.

    The threshold of a label is the least probability from which on its answers reach target_accuracy.
    """
    repeats = len(unheard.decisions)
    truth = np.tile(labels, (repeats, 1))
    decisions = unheard.decisions.reshape(truth.shape)
    sigmoids = np.array([fit_sigmoid(decisions[:, label], truth[:, label]) for label in range(len(head.classes))])
    rule = replace(rule, slopes=sigmoids[:, 0].copy(), intercepts=sigmoids[:, 1].copy())
    probabilities = rule.probabilities(decisions)
    thresholds = [
        least_probability(
            probabilities[:, label], truth[:, label], target=settings.target_accuracy, least=LEAST_ANSWERED * repeats
        )
        for label in range(len(head.classes))
    ]
    return replace(
        head,
        several=replace(rule, thresholds=np.array(thresholds)),
        max_distance=float(np.quantile(unheard.distances, settings.near_share)),
    )


def fit_sigmoid(decisions: Float64, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of the sigmoid that makes probabilities of decision values.

    The likelihood, and the targets a little inside 0 and 1, are Platt's (Probabilistic Outputs for Support Vector
    Machines, 1999). The slope is positive.

    Args:
        decisions: (n,) of one label.
        truth: (n,) whether the label is right.
    """
    yes, no = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (yes + 1) / (yes + 2), 1 / (no + 2))
    centre, spread = float(decisions.mean()), float(decisions.std()) or 1.0
    standard = (decisions - centre) / spread

    def loss(parameters: Float64) -> tuple[float, Float64]:
        slope = np.exp(parameters[0])
        scores = slope * standard + parameters[1]
        errors = expit(scores) - targets
        gradient = np.array([(errors * standard).mean() * slope, errors.mean()])
        return float((np.logaddexp(0.0, scores) - targets * scores).mean()), gradient

    start = np.array([0.0, np.log(targets.mean() / (1.0 - targets.mean()))])
    best: Any = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-10.0, 10.0), (-50.0, 50.0)], tol=1e-12)
    slope = float(np.exp(best.x[0])) / spread
    return slope, float(best.x[1]) - slope * centre


def least_probability(probabilities: Float64, truth: NDArray[np.bool_], *, target: float, least: int) -> float:
    """The least probability from which on a label is right so often; inf where it never is.

    Args:
        probabilities: (n,) of one label.
        truth: (n,) whether it is right.
        target: share of right answers.
        least: so many answers at least.
    """
    surest_first = np.argsort(-probabilities, kind="stable")
    answers = np.arange(1, len(truth) + 1)
    reached = np.flatnonzero((np.cumsum(truth[surest_first]) >= target * answers) & (answers >= least))
    return float(probabilities[surest_first[reached[-1]]]) if len(reached) else np.inf


def answerable(rule: LabelRule) -> NDArray[np.bool_]:
    """(labels,) those that have a threshold, and those that another of these is within."""
    return rule.answered(np.where(np.isfinite(rule.thresholds), np.inf, 0.0))


def keep_labels(head: GenreHead, kept: NDArray[np.bool_]) -> GenreHead:
    """The head of several labels without some of them. With a label, those that it is within have to be kept.

    Raises:
        SettingsError: none is kept.
    """
    rule = head.several
    if rule is None:
        return head
    if not kept.any():
        raise SettingsError(
            "no label is right often enough on the tracks of unheard artists; add tracks, or lower target_accuracy"
        )
    places = np.cumsum(kept) - 1
    parents = np.where(rule.parents >= 0, places[rule.parents], -1)[kept]
    return replace(
        head,
        classes=tuple(np.array(head.classes)[kept].tolist()),
        weights=np.ascontiguousarray(head.weights[:, kept]),
        biases=head.biases[kept],
        several=LabelRule(
            parents=parents,
            slopes=rule.slopes[kept],
            intercepts=rule.intercepts[kept],
            thresholds=rule.thresholds[kept],
        ),
    )
