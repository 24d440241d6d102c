"""What later events take back of a log: the rule of models.history.read_histories, for many users at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.history import KINDS

_REMOVE, _EXCLUDE = KINDS.index("remove"), KINDS.index("exclude")
_SAID = [KINDS.index(kind) for kind in ("like", "dislike")]
_OF_A_TRACK = [*_SAID, *(KINDS.index(kind) for kind in ("unlike", "undislike"))]
_TAKES_BACK = np.isin(np.arange(len(KINDS)), [*_OF_A_TRACK, _REMOVE, _EXCLUDE])


def standing(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether each row of a log still counts at its end.

    A listen does not stand where a remove of the same user names its track and `at`, or where an exclude names its
    track at that time or later. Of the likes and dislikes of a track the last that was said stands, unless that takes
    something back.

    Args:
        rows: (n,) with the fields user, track, at and kind; all rows of each of their users.
    """
    if not _TAKES_BACK[rows["kind"]].any():
        return np.ones(len(rows), bool)
    frame = pl.DataFrame({name: rows[name] for name in ("user", "track", "at", "kind")})
    kind, at = pl.col("kind"), pl.col("at")
    said = at * len(KINDS) + kind.cast(pl.Int64)  # of one moment, that of the greater code is the later one
    removed = (kind == _REMOVE).any().over("user", "track", "at")
    excluded = at <= at.filter(kind == _EXCLUDE).max().over("user", "track").fill_null(-1)
    last = said.filter(kind.is_in(_OF_A_TRACK)).max().over("user", "track")
    outdated = kind.is_in(_SAID) & (said < last)
    return frame.select(~(removed | excluded | outdated)).to_series().to_numpy()
