"""The users of a synthetic platform: what they like when they join, what they come to like, how much they listen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from offline.synth.catalogue import BRIGHTNESS_WEIGHT, SCENE, Float32, Float64, style_centres, unit
from offline.synth.settings import CHAIN, SynthPlatform


@dataclass(frozen=True, kw_only=True, eq=False)
class Listeners:
    """The users: arrays of (users,) values, the tastes as a pair (early, late).

    Attributes:
        styles: two of (users, styles): weights of the 1 to 3 styles a user likes, summing to 1.
        tastes: two of (users, dimensions), of unit norm.
        drift: the share of the way from the early to the late taste that is made by the end, 0 to 1.
        joined_day: counted from the start, with fractions.
        activity: how much a user listens a day, in proportion.
    """

    styles: tuple[Float64, Float64]
    tastes: tuple[Float32, Float32]
    drift: Float64
    joined_day: Float64
    activity: Float64


def draw_listeners(settings: SynthPlatform, rng: Generator) -> Listeners:
    """Users with an early and a late taste; every second one changes little."""
    users = settings.users
    (early_styles, early), (late_styles, late) = (_draw_tastes(users, rng) for _ in range(2))
    new = rng.random(users) < settings.new_user_share
    return Listeners(
        styles=(early_styles, late_styles),
        tastes=(early, late),
        drift=np.where(rng.random(users) < 0.5, rng.uniform(0.3, 1.0, users), rng.uniform(0.0, 0.1, users)),
        joined_day=np.where(new, rng.uniform(0.0, 0.95 * settings.days, users), 0.0),
        activity=rng.lognormal(0.0, 1.0, users),
    )


def _draw_tastes(users: int, rng: Generator) -> tuple[Float64, Float32]:
    places = rng.random((users, len(CHAIN))).argsort(axis=1)
    weights = rng.exponential(size=places.shape) * (places < rng.integers(1, 4, (users, 1)))
    weights /= weights.sum(axis=1, keepdims=True)
    brightness, scene = rng.uniform(-1.0, 1.0, (users, 1)), rng.normal(0.0, 0.2, (users, SCENE))
    taste = np.hstack([unit(weights @ style_centres()), BRIGHTNESS_WEIGHT * brightness, scene])
    return weights, unit(taste).astype(np.float32)
