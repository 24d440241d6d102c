"""Whether something was learned from a platform that `tastewave-offline synth platform` made up.

Trainings write what the platform's maker says of such figures as `training.log.caveat`. A taste space that was learned
so is a demonstration: it is true for no platform that exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def made_up(training: Mapping[str, Any]) -> str | None:
    """The caveat of a made-up log.

        made_up(load_user_tower("towers/mean").manifest.training)  # None: the platform is a real one

    Args:
        training: what the manifest of a user tower or an audio encoder says of its training.

    Returns:
        None where the log is not known to be made up.
    """
    match training:
        case {"log": {"caveat": str(caveat)}}:
            return caveat
        case _:
            return None
