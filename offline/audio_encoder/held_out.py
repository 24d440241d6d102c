"""Which tracks are held out, so that an encoder is judged on artists that it has never heard."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from offline.features.store import StoredTrack


class Part(IntEnum):
    """What a track is for."""

    TRAIN = 0
    VALID = 1
    TEST = 2


def hold_out(tracks: Sequence[StoredTrack], *, share: float, seed: int) -> NDArray[np.uint8]:
    """Draw the tracks that are held out: whole artists, and with a track all others whose files are equal to its own.

        parts = hold_out(list(store), share=0.1, seed=0)
        parts == Part.TRAIN

    Args:
        tracks: of a store. One whose artist is not known is an artist of its own.
        share: of the tracks for TEST, and as many for VALID. An artist that would exceed it stays in TRAIN.
        seed: of the draw.

    Returns:
        (tracks,) codes of Part.
    """
    groups = _groups(tracks)
    sizes, wanted = np.bincount(groups), max(1, round(share * len(tracks)))
    left = {Part.TEST: wanted, Part.VALID: wanted}
    parts = np.full(len(sizes), Part.TRAIN, np.uint8)
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        for part, room in left.items():
            if sizes[group] <= room:
                left[part] = room - int(sizes[group])
                parts[group] = part
                break
    return parts[groups]


def _groups(tracks: Sequence[StoredTrack]) -> NDArray[np.int64]:
    """(tracks,) numbers of the groups that stay together: those that a chain of artists and contents connects."""
    names = dict[tuple[str, str | None], int]()
    edges = [
        (number, len(tracks) + names.setdefault(name, len(names)))
        for number, track in enumerate(tracks)
        for name in (("artist", track.artist_id), ("content", track.content))
        if name[1]
    ]
    size = len(tracks) + len(names)
    rows, columns = np.array(edges).T
    _, labels = connected_components(coo_array((np.ones(len(edges), bool), (rows, columns)), shape=(size, size)))
    return np.unique(labels[: len(tracks)], return_inverse=True)[1]
