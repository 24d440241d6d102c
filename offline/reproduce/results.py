"""What a run of the protocol comes to: a row for each recipe, and whether the embedding makes a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.reproduce.judge import Judged
from offline.reproduce.labelled_set import LabelledSet, Published
from offline.reproduce.significance import Difference, Draws, Estimate, McNemar, mcnemar, rank_p
from offline.reproduce.sources import permuted_name

Bool = NDArray[np.bool_]

AUDIO, WITH, ALONE, OF_RANDOM, NOISE, PERMUTED = "audio", "preference", "embedding", "random", "noise", "permuted"
REFERENCE = "reference"
LABELS = {
    REFERENCE: "reference repository",
    AUDIO: "audio",
    WITH: "audio + preference",
    ALONE: "preference alone",
    PERMUTED: "audio + permuted",
    OF_RANDOM: "audio + random",
    NOISE: "audio + noise",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe, or the permuted ones together, with the least and the greatest of them in the place of intervals.

    Attributes:
        name: of LABELS.
        published: of the paper, or of the reference repository; None where neither gives one.
        splits: accuracy on the tests of the splits.
        folds: accuracy in cross-validation; None where the recipe is judged on splits alone.
    """

    name: str
    published: float | None
    splits: dict[str, Estimate]
    folds: Estimate | None


class Permuted(msgspec.Struct, frozen=True, kw_only=True):
    """The permuted control.

    Attributes:
        accuracies: of each permuted encoder, beside audio, in cross-validation.
        reached: how many of them reach the true one.
        p: of its rank.
    """

    accuracies: tuple[float, ...]
    reached: int
    p: float


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """results.json.

    Attributes:
        set: on which the protocol ran.
        demonstration: what is to be said of a taste space of a made-up platform; None of any other.
        notes: what is to be known of the tracks.
        tracks, artists: how many were heard; the artists are groups that no fold divides.
        genres: their names.
        published_split: the split that the figures of others are of.
        published: what those are.
        rows: the recipes.
        primary: accuracy with the embedding minus that without, in cross-validation: the primary test.
        against: accuracy with the embedding minus that of each other recipe.
        splits: with against without the embedding, on the test of each split.
        permuted: None where the source is a release: nothing can be trained anew.
        source: what the embedding is of.
        encoders: what is known of each encoder that was trained.
        settings: of the run.
    """

    set: str
    demonstration: str | None
    notes: tuple[str, ...]
    tracks: int
    artists: int
    genres: tuple[str, ...]
    published_split: str
    published: Published
    rows: tuple[Row, ...]
    primary: Difference
    against: dict[str, Difference]
    splits: dict[str, McNemar]
    permuted: Permuted | None
    source: dict[str, Any]
    encoders: dict[str, Any]
    settings: dict[str, Any]


def permuted_of(judged: Mapping[str, Judged]) -> list[Judged]:
    """Those of the permuted encoders, in their order."""
    names = map(permuted_name, range(len(judged)))
    return [judged[name] for name in names if name in judged]


def rows_of(
    labelled: LabelledSet,
    judged: Mapping[str, Judged],
    reference: Sequence[Bool],
    draws: Draws,
    asked: Sequence[Bool],
) -> tuple[Row, ...]:
    """The rows in the order of LABELS; that of the permuted encoders is missing where there are none.

    Args:
        labelled: the set.
        judged: by the names of recipes.
        reference: for each split (tracks,) whether the reference recipe was right.
        draws: of the bootstrap.
        asked: for each split (tracks,) whether a track is of its test.
    """
    names = [split.name for split in labelled.splits]

    def on_splits(right: Sequence[Bool]) -> dict[str, Estimate]:
        return {name: draws.accuracy(of_split, test) for name, of_split, test in zip(names, right, asked, strict=True)}

    figures = labelled.published
    published = {REFERENCE: figures.reference, AUDIO: figures.without, WITH: figures.preference}
    rows = {REFERENCE: Row(name=REFERENCE, published=figures.reference, splits=on_splits(reference), folds=None)}
    for name in (AUDIO, WITH, ALONE, OF_RANDOM, NOISE):
        right = judged[name]
        rows[name] = Row(
            name=name,
            published=published.get(name),
            splits=on_splits(list(right.of_splits)),
            folds=draws.accuracy(right.of_folds),
        )
    if permuted := permuted_of(judged):
        of_splits = {
            name: _range([float(one.of_splits[number, test].mean()) for one in permuted])
            for number, (name, test) in enumerate(zip(names, asked, strict=True))
        }
        folds = _range([float(one.of_folds.mean()) for one in permuted])
        rows[PERMUTED] = Row(name=PERMUTED, published=None, splits=of_splits, folds=folds)
    return tuple(rows[name] for name in LABELS if name in rows)


def comparisons(
    labelled: LabelledSet, judged: Mapping[str, Judged], draws: Draws, asked: Sequence[Bool]
) -> dict[str, Any]:
    """The fields primary, against, splits and permuted of Results."""
    preference = judged[WITH]
    against = {
        name: draws.difference(judged[name].of_folds, preference.of_folds) for name in (AUDIO, ALONE, OF_RANDOM, NOISE)
    }
    splits = {
        split.name: mcnemar(judged[AUDIO].of_splits[number, test], preference.of_splits[number, test])
        for number, (split, test) in enumerate(zip(labelled.splits, asked, strict=True))
    }
    accuracies = tuple(float(one.of_folds.mean()) for one in permuted_of(judged))
    value = float(preference.of_folds.mean())
    permuted = Permuted(
        accuracies=accuracies, reached=sum(one >= value for one in accuracies), p=rank_p(value, accuracies)
    )
    return {
        "primary": against.pop(AUDIO),
        "against": against,
        "splits": splits,
        "permuted": permuted if accuracies else None,
    }


def _range(values: Sequence[float]) -> Estimate:
    return Estimate(value=float(np.mean(values)), low=min(values), high=max(values))
