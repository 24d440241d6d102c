"""A set of labelled tracks with its splits, and what was published about it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import polars as pl


@dataclass(frozen=True, kw_only=True)
class Split:
    """Tracks to train on and tracks to test on, by their ids.

    Attributes:
        name: of the split.
        train, test: the tracks.
        published: that the paper's figures are of this split.
    """

    name: str
    train: frozenset[str]
    test: frozenset[str]
    published: bool = False


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracies of others.

    Attributes:
        without, preference: of the paper, without and with the embedding.
        reference: of the reference repository's recipe; None where there is none.
    """

    without: float
    preference: float
    reference: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSet:
    """A set that the protocol runs on.

    Attributes:
        name: for people.
        tracks: with the columns of offline.features.catalogue.SCHEMA; tracks of one artist_id share a fold.
        splits: of their ids.
        published: figures of others.
        notes: what a reader should know of the tracks and splits.
    """

    name: str
    tracks: pl.DataFrame
    splits: tuple[Split, ...]
    published: Published
    notes: tuple[str, ...]
